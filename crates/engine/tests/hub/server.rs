//! An HTTP server of a few lines, so that tests can make it misbehave.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it arrived; names of headers are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that a range asks for.
    pub(crate) fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// Serves every connection one request and closes it.
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

pub(crate) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Server {
    /// `answer` gets the number of requests before this one, the request, and the connection to write to.
    pub(crate) fn start(answer: impl Fn(usize, &Request, &mut dyn Stream) + Send + Sync + 'static) -> Self {
        Self::start_on(|stream| Some(Box::new(stream)), answer)
    }

    /// `wrap` makes the stream to talk over out of a connection, such as one with TLS.
    pub(crate) fn start_on(
        wrap: impl Fn(std::net::TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
        answer: impl Fn(usize, &Request, &mut dyn Stream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        let shared = Arc::new((wrap, answer));
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (log, shared) = (log.clone(), shared.clone());
                thread::spawn(move || {
                    let (wrap, answer) = &*shared;
                    let Some(mut stream) = wrap(stream) else { return };
                    let Some(request) = read_request(&mut *stream) else { return };
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        log.len() - 1
                    };
                    answer(number, &request, &mut *stream);
                    let _ = stream.flush();
                });
            }
        });
        Self { port, requests }
    }

    /// The server's address, with `path` behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut dyn Stream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then(|| head.push(byte[0]))?;
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Request { target, headers })
}

/// Sends a reply with a `Content-Length`, unless `headers` give another.
pub(crate) fn reply(stream: &mut dyn Stream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name)) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    // A client that has heard enough is not the server's problem.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}

/// How a file is served.
pub(crate) struct File<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) etag: Option<&'a str>,
    /// Whether ranges are understood.
    pub(crate) ranges: bool,
    /// After how many bytes of the body the connection breaks off.
    pub(crate) cut: Option<usize>,
}

impl File<'_> {
    /// Serves it as a good server would, apart from what the fields say.
    pub(crate) fn serve(&self, request: &Request, stream: &mut dyn Stream) {
        let unchanged = request.header("if-range").is_none_or(|tag| Some(tag) == self.etag);
        let start = request.range_start().filter(|_| self.ranges && unchanged);
        let (len, range);
        let (body, status) = match start {
            Some(start) if start >= self.bytes.len() => {
                range = format!("bytes */{}", self.bytes.len());
                (&[][..], "416 Range Not Satisfiable")
            }
            Some(start) => {
                range = format!("bytes {start}-{}/{}", self.bytes.len() - 1, self.bytes.len());
                (&self.bytes[start..], "206 Partial Content")
            }
            None => {
                range = String::new();
                (self.bytes, "200 OK")
            }
        };
        len = body.len().to_string();
        let mut headers = vec![("Content-Length", len.as_str())];
        headers.extend(self.etag.map(|etag| ("ETag", etag)));
        headers.extend((!range.is_empty()).then_some(("Content-Range", range.as_str())));
        reply(stream, status, &headers, &body[..self.cut.unwrap_or(body.len()).min(body.len())]);
    }
}
