use std::thread;
use std::time::{Duration, Instant};

use firecrest::hub::{self, HubError, HubOptions};

use crate::server::{File, Server, Stream, reply};
use crate::{Recorder, files, model, options, reference, resolve};

/// Asks a server that always answers the same for a model, and checks that nothing is left behind.
fn error_of(test: &str, adjust: impl Fn(&mut HubOptions), answer: fn(&mut dyn Stream)) -> (HubError, usize) {
    let mut options = options(test);
    adjust(&mut options);
    let server = Server::start(move |_, _, stream| answer(stream));
    let error = resolve(&server.url("/m.gguf?token=secret"), &options).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(files(&options), [""; 0], "{error}");
    (error, server.requests().len())
}

#[test]
fn refusals_say_what_to_do() {
    for (status, requests, hint) in [
        ("401 Unauthorized", 1, "it does not exist, or access needs a token: set HF_TOKEN (status 401)"),
        ("403 Forbidden", 1, "terms must be accepted"),
        ("404 Not Found", 1, "not found (status 404)"),
        ("418 I'm a teapot", 1, "the server answers with status 418"),
        ("429 Too Many Requests", 4, "too many requests"),
        ("500 Internal Server Error", 4, "the server has a problem; try again later (status 500)"),
        ("503 Service Unavailable", 4, "try again later"),
        ("999 ?", 1, "status 999"),
    ] {
        let options = options("refusals");
        let server = Server::start(move |_, _, stream| reply(stream, status, &[], b"no"));
        let error = resolve(&server.url("/m.gguf"), &options).unwrap_err().to_string();
        assert!(error.contains(hint) && error.contains("/m.gguf"), "{error}");
        assert_eq!((server.requests().len(), files(&options).len()), (requests, 0), "{status}");
    }
}

#[test]
fn a_short_outage_is_waited_out() {
    let (bytes, options) = (model(1000, 1), options("outage"));
    let server = Server::start(move |number, request, stream| match number {
        0 => reply(stream, "503 Service Unavailable", &[], b""),
        1 => reply(stream, "429 Too Many Requests", &[("Retry-After", "1")], b""),
        _ => File { bytes: &bytes, etag: None, ranges: true, cut: None }.serve(request, stream),
    });
    let start = Instant::now();
    resolve(&server.url("/m.gguf"), &options).unwrap();
    assert_eq!(server.requests().len(), 3);
    assert!(start.elapsed() >= Duration::from_secs(1));
    // Nobody wants to wait for an hour.
    let start = Instant::now();
    let (error, requests) = error_of(
        "retry-later",
        |_| {},
        |stream| {
            reply(stream, "429 Too Many Requests", &[("Retry-After", "3600")], b"");
        },
    );
    assert!(matches!(error, HubError::Status { status: 429, retry_after: Some(_), .. }));
    assert_eq!(requests, 1);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_wrong_body_is_refused_and_deleted() {
    let (error, _) = error_of(
        "html",
        |_| {},
        |stream| {
            reply(stream, "200 OK", &[], b"<!doctype html><title>Please log in</title>");
        },
    );
    assert!(
        error.to_string().ends_with("is not a GGUF file: it starts with \"<!doctype html><\""),
        "{error}"
    );
    let (error, _) = error_of("empty", |_| {}, |stream| reply(stream, "200 OK", &[], b""));
    assert!(matches!(error, HubError::NotGguf { .. }), "{error}");
}

#[test]
fn a_short_body_is_a_broken_connection() {
    let mut options = options("short");
    options.retries = 0;
    let server =
        Server::start(|_, _, stream| reply(stream, "200 OK", &[("Content-Length", "1000")], b"GGUF"));
    let error = resolve(&server.url("/m.gguf"), &options).unwrap_err();
    assert!(matches!(error, HubError::Dropped { received: 4, expected: Some(1000), .. }), "{error}");
}

#[test]
fn nonsense_is_a_protocol_error() {
    for (test, answer) in [
        ("not-http", "220 smtp.example.com ESMTP\r\n\r\n"),
        ("bad-length", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        ("negative-length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
        ("bad-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nGGUF\r\n"),
        ("range-unasked", "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\nGGUF"),
        ("no-location", "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        (
            "bad-location",
            "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: ftp://h/x\r\nContent-Length: 0\r\n\r\n",
        ),
        ("loop", "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /m.gguf\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let options = options(test);
        let server = Server::start(move |_, _, stream| {
            let _ = stream.write_all(answer.as_bytes());
        });
        let error = resolve(&server.url("/m.gguf"), &options).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{test}: {error:?}");
        assert_eq!(files(&options), [""; 0], "{test}");
    }
}

#[test]
fn a_wrong_range_is_not_written() {
    // The server resumes somewhere else, then nowhere, then properly.
    let (bytes, options) = (model(10_000, 2), options("wrong-range"));
    let served = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        let file = |cut| File { bytes: &served, etag: Some("\"1\""), ranges: true, cut };
        match number {
            0 => file(Some(4000)).serve(request, stream),
            1 => {
                let headers = [("Content-Range", "bytes 3999-9999/10000"), ("ETag", "\"1\"")];
                reply(stream, "206 Partial Content", &headers, &served[3999..]);
            }
            _ => file(None).serve(request, stream),
        }
    });
    let path = resolve(&server.url("/m.gguf"), &options).unwrap();
    assert!(std::fs::read(path).unwrap() == bytes);
}

#[test]
fn a_silent_server_is_given_up() {
    let hasty = |options: &mut HubOptions| {
        options.idle_timeout = Duration::from_millis(200);
        options.retries = 1;
    };
    let start = Instant::now();
    let (error, requests) = error_of("silent", hasty, |_| thread::sleep(Duration::from_secs(30)));
    assert!(matches!(error, HubError::Stalled { .. }), "{error:?}");
    assert!(error.to_string().ends_with("no data for 0.2 s"), "{error}");
    assert_eq!(requests, 2);

    // Silence in the middle of the body, too.
    let mut options = options("stalls");
    hasty(&mut options);
    let server = Server::start(|_, _, stream| {
        reply(stream, "200 OK", &[("Content-Length", "1000")], b"GGUF");
        thread::sleep(Duration::from_secs(30));
    });
    let error = resolve(&server.url("/m.gguf"), &options).unwrap_err();
    assert!(matches!(error, HubError::Stalled { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_connection_that_closes_at_once_is_tried_again() {
    let (error, requests) = error_of("closes", |_| {}, |_| {});
    assert!(matches!(error, HubError::Dropped { .. }), "{error:?}");
    assert_eq!(requests, 4);
}

#[test]
fn an_unreachable_server_fails_at_once() {
    let options = options("unreachable");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let mut recorder = Recorder::default();
    let url = format!("http://127.0.0.1:{port}/m.gguf");
    let error = hub::resolve(&reference(&url), &options, &mut recorder).unwrap_err();
    assert!(error.to_string().starts_with(&format!("can't connect to 127.0.0.1:{port}: ")), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert!(recorder.retries.is_empty() && start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_file_larger_than_the_disk_is_not_begun() {
    let (error, requests) = error_of(
        "disk",
        |_| {},
        |stream| {
            reply(stream, "200 OK", &[("Content-Length", "1152921504606846976")], b"GGUF");
        },
    );
    assert!(matches!(
        error,
        HubError::DiskFull { needed: Some(0x1000_0000_0000_0000), available: Some(_), .. }
    ));
    assert_eq!(requests, 1);
}

#[test]
fn proxies_are_asked_to_connect() {
    let (bytes, mut options) = (model(1000, 3), options("proxy"));
    // A proxy that answers for every host itself, after agreeing to connect.
    let served = bytes.clone();
    let proxy = Server::start(move |_, request, stream| {
        assert_eq!(request.target, "models.invalid:80");
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"GET /m.gguf HTTP/1.1\r\n"));
        File { bytes: &served, etag: None, ranges: true, cut: None }.serve(request, stream);
    });
    options.proxy.http = Some(proxy.url(""));
    let path = resolve("http://models.invalid/m.gguf", &options).unwrap();
    assert!(std::fs::read(path).unwrap() == bytes);
    assert_eq!(proxy.requests().len(), 1);

    options.proxy.exempt = "other,models.invalid".into();
    let error = resolve("http://models.invalid/n.gguf", &options).unwrap_err();
    assert!(matches!(error, HubError::Connect { .. }), "{error}");
    options.proxy.exempt.clear();
    options.proxy.http = Some("no proxy".into());
    let error = resolve("http://models.invalid/n.gguf", &options).unwrap_err();
    assert!(matches!(error, HubError::Proxy { .. }), "{error}");
}
