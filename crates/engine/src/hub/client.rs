use std::io::{self, Read};
use std::time::Duration;

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, ETAG, HeaderMap, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use ureq::http::{HeaderName, Uri};
use ureq::{Agent, Body, Proxy, Timeout};

use super::options::ProxyOptions;
use super::{HubError, HubOptions, RefError, Sha256Sum, tls};

const MAX_REDIRECTS: usize = 10;

/// The largest list of files to read; a page of a thousand files has some 300 KB.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// An HTTP client that follows redirects itself, so that it decides at each step who gets to see the token.
pub(super) struct Client {
    agent: Agent,
    proxy: ProxyOptions,
    idle_timeout: Duration,
    /// The value of the `Authorization` header, and for whom it is.
    authorization: Option<(Origin, String)>,
}

/// What a server answered.
pub(super) struct Reply {
    /// The URL that was asked for first, to be shown to users.
    url: String,
    uri: Uri,
    status: u16,
    headers: HeaderMap,
    body: Body,
    /// The sum of the file, if the hub gave it on the way to a storage server.
    pub(super) linked_sha256: Option<Sha256Sum>,
    idle_timeout: Duration,
}

/// Scheme, host and port: who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Result<Self, HubError> {
        let agent = Agent::config_builder()
            .tls_config(tls::config())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("firecrest/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.idle_timeout))
            .timeout_per_read(Some(options.idle_timeout))
            .build()
            .new_agent();
        let authorization = match &options.token {
            Some(token) => {
                let endpoint = Origin::of(&parse(&options.endpoint)?)
                    .ok_or_else(|| RefError::Url { url: options.endpoint.clone() })?;
                Some((endpoint, format!("Bearer {token}")))
            }
            None => None,
        };
        Ok(Self { agent, proxy: options.proxy.clone(), idle_timeout: options.idle_timeout, authorization })
    }

    /// Asks for a URL and returns the reply to the last redirect, which is 200, 206 or 416.
    pub(super) fn get(&self, url: &str, headers: &[(HeaderName, &str)]) -> Result<Reply, HubError> {
        let mut uri = parse(url)?;
        let mut linked_sha256 = None;
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.request(url, uri, headers)?;
            linked_sha256 = linked_sha256.or_else(|| reply.header(&LINKED_ETAG).and_then(sha256_of_etag));
            match reply.status {
                200 | 206 | 416 => return Ok(Reply { linked_sha256, ..reply }),
                301 | 302 | 303 | 307 | 308 => {
                    let location =
                        reply.header(&LOCATION).and_then(|location| redirect(&reply.uri, location));
                    let next =
                        location.ok_or_else(|| reply.invalid("a redirect without a valid location"))?;
                    if reply.uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                        return Err(HubError::InsecureRedirect { url: shown(url) });
                    }
                    uri = next;
                }
                status => {
                    let seconds = reply.header(&RETRY_AFTER).and_then(|value| value.parse().ok());
                    let retry_after = seconds.map(Duration::from_secs);
                    return Err(HubError::Status { url: shown(url), status, retry_after });
                }
            }
        }
        Err(HubError::Protocol { url: shown(url), reason: "too many redirects".to_owned() })
    }

    fn request(&self, url: &str, uri: Uri, headers: &[(HeaderName, &str)]) -> Result<Reply, HubError> {
        let Some(origin) = Origin::of(&uri) else {
            return Err(RefError::Url { url: shown(url) }.into());
        };
        let proxy = self.proxy.select(origin.https, &origin.host, origin.port).map(Proxy::new).transpose();
        let proxy = proxy.map_err(|_| HubError::Proxy { host: origin.host.clone() })?;
        // Compression would make byte ranges and lengths those of something else than the file.
        let mut request = self.agent.get(&uri).header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        match &self.authorization {
            Some((endpoint, value)) if *endpoint == origin => request = request.header(AUTHORIZATION, value),
            _ => {}
        }
        let reply = request.config().proxy(proxy).build().call();
        let reply = reply.map_err(|error| describe(error, url, Some(&origin), self.idle_timeout))?;
        let (parts, body) = reply.into_parts();
        Ok(Reply {
            url: shown(url),
            uri,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            linked_sha256: None,
            idle_timeout: self.idle_timeout,
        })
    }
}

/// The name under which the hub gives the ETag that the storage server's file would have; for a large file that is
/// its SHA-256.
static LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

impl Reply {
    /// The status: 200, 206 or 416.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Returns a header's value, if it is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns what identifies this state of the file in an `If-Range` header: a strong ETag or a date.
    pub(super) fn validator(&self) -> Option<&str> {
        self.header(&ETAG).filter(|etag| etag.starts_with('"')).or_else(|| self.header(&LAST_MODIFIED))
    }

    /// Returns the length of the body, if the server announces it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// Returns the error for a reply that makes no sense.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> HubError {
        HubError::Protocol { url: self.url.clone(), reason: reason.into() }
    }

    /// Reads the next bytes of the body: 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HubError> {
        let read = self.body.as_reader().read(buffer);
        read.map_err(|error| describe(error.into(), &self.url, None, self.idle_timeout))
    }

    /// Reads the whole body, which must be small.
    pub(super) fn read_all(mut self) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::new();
        let read = self.body.as_reader().take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| describe(error.into(), &self.url, None, self.idle_timeout))?;
        match bytes.len() as u64 > MAX_TEXT_BYTES {
            true => Err(self.invalid("it is too long")),
            false => Ok(bytes),
        }
    }

    /// Returns the URL of the list's next page (RFC 8288).
    pub(super) fn next_page(&self) -> Option<String> {
        let link = self.header(&HeaderName::from_static("link"))?;
        let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
        let target = next.split_once('<')?.1.split_once('>')?.0;
        Some(redirect(&self.uri, target)?.to_string())
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { https, host, port })
    }

    fn shown(&self) -> String {
        match (self.https, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Returns the URL of a file of a repository.
pub(super) fn hub_file_url(endpoint: &str, repo: &str, revision: &str, file: &str) -> String {
    let mut url = format!("{}/{repo}/resolve/{revision}/", endpoint.trim_end_matches('/'));
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(byte.into());
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

/// Returns a URL as users may see it: the query can be a signature.
pub(super) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

fn parse(url: &str) -> Result<Uri, HubError> {
    url.parse().map_err(|_| RefError::Url { url: shown(url) }.into())
}

/// Resolves a link against the URL of the page it stands on.
fn redirect(base: &Uri, link: &str) -> Option<Uri> {
    let link = link.trim().split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = if link.starts_with("http://") || link.starts_with("https://") {
        link.to_owned()
    } else if let Some(rest) = link.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if link.starts_with('/') {
        format!("{scheme}://{authority}{link}")
    } else if link.split('/').next()?.contains(':') {
        return None;
    } else {
        let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{link}")
    };
    absolute.parse().ok().filter(|uri| Origin::of(uri).is_some())
}

/// Reads an ETag that is a SHA-256.
fn sha256_of_etag(etag: &str) -> Option<Sha256Sum> {
    Sha256Sum::from_hex(etag.trim_start_matches("W/").trim_matches('"'))
}

/// Turns an error of the HTTP library into ours; `origin` is given while there is no reply yet.
fn describe(error: ureq::Error, url: &str, origin: Option<&Origin>, idle_timeout: Duration) -> HubError {
    let host = || origin.map(Origin::shown).unwrap_or_else(|| shown(url));
    let connect = |source| HubError::Connect { host: host(), source };
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            connect(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
        }
        ureq::Error::Timeout(_) => HubError::Stalled { url: shown(url), after: idle_timeout },
        ureq::Error::HostNotFound => connect(io::Error::new(io::ErrorKind::NotFound, "host not found")),
        ureq::Error::ConnectProxyFailed(reason) => connect(io::Error::other(reason)),
        ureq::Error::ConnectionFailed => connect(io::Error::other("connection failed")),
        ureq::Error::InvalidProxyUrl => HubError::Proxy { host: host() },
        ureq::Error::Rustls(error) => HubError::Tls { host: host(), reason: error.to_string() },
        ureq::Error::Tls(reason) => HubError::Tls { host: host(), reason: reason.to_owned() },
        ureq::Error::Io(error) => {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => HubError::Tls { host: host(), reason: inner.to_string() },
                None if origin.is_some() && !is_disconnect(&error) => connect(error),
                None => HubError::Dropped { url: shown(url), received: 0, expected: None },
            }
        }
        other => HubError::Protocol { url: shown(url), reason: other.to_string() },
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_against_their_page() {
        let base: Uri = "https://h:8443/a/b?x=1".parse().unwrap();
        for (link, expected) in [
            ("https://other/c?y", Some("https://other/c?y")),
            ("//other/c", Some("https://other/c")),
            ("/c/d#top", Some("https://h:8443/c/d")),
            ("c", Some("https://h:8443/a/c")),
            ("http://other/", Some("http://other/")),
            ("ftp://other/c", None),
            ("javascript:x", None),
            ("http://", None),
        ] {
            let resolved = redirect(&base, link).map(|uri| uri.to_string());
            assert_eq!(resolved.as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
        assert_eq!(origin("https://HF.co/a"), origin("https://hf.co:443/b"));
        for other in ["http://hf.co", "https://hf.co:444", "https://hf.co.evil", "https://x.hf.co"] {
            assert_ne!(origin("https://hf.co"), origin(other));
        }
    }

    #[test]
    fn file_names_are_escaped_in_urls() {
        let url = hub_file_url("https://hf.co/", "o/r", "main", "a b/ü?#%.gguf");
        assert_eq!(url, "https://hf.co/o/r/resolve/main/a%20b/%C3%BC%3F%23%25.gguf");
    }
}
