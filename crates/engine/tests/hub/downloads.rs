use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use firecrest::hub::{self, HubError, Stage, Update};

use crate::server::{File, Server, reply};
use crate::{Recorder, child, files, model, options, reference, resolve, result_of, sha256};

/// Serves `bytes` in pieces of `cut` bytes per connection.
fn flaky(bytes: &[u8], etag: Option<&'static str>, ranges: bool, cut: usize) -> Server {
    let bytes = bytes.to_vec();
    Server::start(move |number, request, stream| {
        let cut = if ranges || number < 2 { Some(cut) } else { None };
        File { bytes: &bytes, etag, ranges, cut }.serve(request, stream);
    })
}

#[test]
fn a_model_is_fetched_once_kept_listed_and_removed() {
    let (bytes, mut options) = (model(300_000, 1), options("once"));
    let served = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        File { bytes: &served, etag: Some("\"1\""), ranges: true, cut: None }.serve(request, stream)
    });
    let url = server.url("/dir/tiny.gguf?signature=secret");
    assert_eq!(hub::path_of(&reference(&url), &options).unwrap(), None);
    let mut recorder = Recorder::default();
    let path = hub::resolve(&reference(&url), &options, &mut recorder).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(files(&options), ["tiny.gguf", "tiny.gguf.model.json"]);
    assert_eq!(recorder.updates.first(), Some(&(Stage::Connecting, 0, None)));
    assert_eq!(recorder.updates.last(), Some(&(Stage::Downloading, 300_000, Some(300_000))));

    assert_eq!(resolve(&url, &options).unwrap(), path);
    options.offline = true;
    assert_eq!(resolve(&url, &options).unwrap(), path);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].header("range"), None);
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("identity"));

    let listed = hub::list(&options).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].path(), listed[0].bytes(), &listed[0].name), (&*path, 300_000, &url));
    assert_eq!(listed[0].source, server.url("/dir/tiny.gguf"));
    assert_eq!(listed[0].files[0].sha256, sha256(&bytes));
    assert!(listed[0].fetched.elapsed().unwrap() < Duration::from_secs(60));

    assert!(hub::remove(&reference(&url), &options).unwrap() > 300_000);
    assert_eq!(files(&options), [""; 0]);
    assert!(hub::list(&options).unwrap().is_empty());
    assert!(matches!(hub::remove(&reference(&url), &options), Err(HubError::NotCached { .. })));
    assert!(matches!(resolve(&url, &options), Err(HubError::Offline { .. })));
}

#[test]
fn a_dropped_connection_is_taken_up_where_it_broke_off() {
    let (bytes, options) = (model(100_000, 2), options("resume"));
    let server = flaky(&bytes, Some("\"v1\""), true, 30_000);
    let mut recorder = Recorder::default();
    let path = hub::resolve(&reference(&server.url("/m.gguf")), &options, &mut recorder).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    let starts: Vec<_> = server.requests().iter().map(|request| request.range_start()).collect();
    assert_eq!(starts, [None, Some(30_000), Some(60_000), Some(90_000)]);
    assert!(server.requests()[1..].iter().all(|request| request.header("if-range") == Some("\"v1\"")));
    assert_eq!(recorder.retries.len(), 3);
    let expected = format!("{}: the connection broke off after 30000 of 100000 bytes", server.url("/m.gguf"));
    assert_eq!(recorder.retries[0], expected);
}

#[test]
fn gains_are_no_failures_and_the_rest_is_kept_when_patience_ends() {
    let (bytes, mut options) = (model(5 << 20, 3), options("gains"));
    options.retries = 1;
    let server = flaky(&bytes, Some("\"v1\""), true, 3 << 19);
    let path = resolve(&server.url("/m.gguf"), &options).unwrap();
    assert!(fs::read(path).unwrap() == bytes);
    assert_eq!(server.requests().len(), 4);

    let server = flaky(&bytes, Some("\"v1\""), true, 1 << 19);
    let error = resolve(&server.url("/m.gguf"), &options).unwrap_err();
    assert!(
        matches!(error, HubError::Dropped { received: 1_572_864, expected: Some(5_242_880), .. }),
        "{error}"
    );
    // Another call goes on from there.
    let error = resolve(&server.url("/m.gguf"), &options).unwrap_err();
    assert!(matches!(error, HubError::Dropped { received: 3_145_728, .. }), "{error}");
    assert_eq!(server.requests()[3].range_start(), Some(1_572_864));
}

#[test]
fn a_server_that_ignores_ranges_is_asked_from_the_start() {
    let (bytes, options) = (model(100_000, 4), options("no-ranges"));
    let server = flaky(&bytes, Some("\"v1\""), false, 30_000);
    let path = resolve(&server.url("/m.gguf"), &options).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    let starts: Vec<_> = server.requests().iter().map(|request| request.range_start()).collect();
    assert_eq!(starts, [None, Some(30_000), Some(30_000)]);
}

#[test]
fn without_a_validator_or_a_sum_nothing_is_resumed() {
    for (test, etag) in [("no-etag", None), ("weak-etag", Some("W/\"v1\""))] {
        let (bytes, options) = (model(100_000, 5), options(test));
        let served = bytes.clone();
        let server = Server::start(move |number, request, stream| {
            let cut = (number < 2).then_some(30_000);
            File { bytes: &served, etag, ranges: true, cut }.serve(request, stream);
        });
        let path = resolve(&server.url("/m.gguf"), &options).unwrap();
        assert_eq!(fs::read(path).unwrap(), bytes);
        assert!(server.requests().iter().all(|request| request.range_start().is_none()));
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_fetched_anew() {
    // The first server heeds If-Range and answers with the new file. The second, wrongly, goes on with the rest of
    // the new file, and only its ETag tells. The third does so where the new file is shorter.
    for (test, heeds, len) in
        [("heeds", true, 100_000), ("ignores", false, 100_000), ("shorter", false, 20_000)]
    {
        let (old, new, options) = (model(100_000, 6), model(len, 7), options(&format!("changed-{test}")));
        let served = new.clone();
        let server = Server::start(move |number, request, stream| {
            let mut request = request.clone();
            if !heeds {
                request.headers.retain(|(name, _)| name != "if-range");
            }
            match number {
                0 => File { bytes: &old, etag: Some("\"old\""), ranges: true, cut: Some(40_000) },
                _ => File { bytes: &served, etag: Some("\"new\""), ranges: true, cut: None },
            }
            .serve(&request, stream);
        });
        let path = resolve(&server.url("/m.gguf"), &options).unwrap();
        assert!(fs::read(path).unwrap() == new, "{test}");
    }
}

#[test]
fn a_cancelled_download_goes_on_later() {
    let (bytes, options) = (model(1_000_000, 8), options("cancel"));
    let served = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        File { bytes: &served, etag: Some("\"v1\""), ranges: true, cut: None }.serve(request, stream)
    });
    let url = server.url("/m.gguf");
    let mut recorder = Recorder { stop_at: Some(400_000), ..Recorder::default() };
    let error = hub::resolve(&reference(&url), &options, &mut recorder).unwrap_err();
    assert!(matches!(error, HubError::Cancelled));
    assert_eq!(files(&options), ["m.gguf.part", "m.gguf.part.json"]);
    assert!(hub::list(&options).unwrap().is_empty());
    assert_eq!(hub::path_of(&reference(&url), &options).unwrap(), None);

    let mut recorder = Recorder::default();
    let path = hub::resolve(&reference(&url), &options, &mut recorder).unwrap();
    assert!(fs::read(path).unwrap() == bytes);
    let start = server.requests()[1].range_start().unwrap();
    assert!((400_000..1_000_000).contains(&start));
    assert_eq!(recorder.updates[0].0, Stage::Verifying);
    assert_eq!(files(&options), ["m.gguf", "m.gguf.model.json"]);
}

#[test]
fn removing_clears_an_unfinished_download() {
    let (bytes, options) = (model(1_000_000, 9), options("remove-part"));
    let server = flaky(&bytes, Some("\"v1\""), true, 1000);
    let url = server.url("/m.gguf");
    assert!(resolve(&url, &options).is_err());
    assert!(hub::remove(&reference(&url), &options).unwrap() >= 4000);
    assert_eq!(files(&options), [""; 0]);
}

#[test]
fn a_last_modified_date_validates_too_and_chunked_bodies_are_read() {
    let (bytes, options) = (model(100_000, 10), options("chunked"));
    let served = bytes.clone();
    let date = "Tue, 01 Oct 2024 07:28:00 GMT";
    let server = Server::start(move |number, request, stream| {
        let body = &served[request.range_start().unwrap_or(0)..];
        let mut chunks = Vec::new();
        for chunk in body.chunks(7000) {
            chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            chunks.extend(chunk);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        let range = format!("bytes {}-99999/100000", 100_000 - body.len());
        let headers = [("Transfer-Encoding", "chunked"), ("Last-Modified", date), ("Content-Range", &range)];
        let cut = if number == 0 { 50_000 } else { chunks.len() };
        let status = if number == 0 { "200 OK" } else { "206 Partial Content" };
        reply(stream, status, &headers, &chunks[..cut]);
    });
    let path = resolve(&server.url("/m.gguf"), &options).unwrap();
    assert!(fs::read(path).unwrap() == bytes);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(server.requests()[1].header("if-range"), Some(date));
}

#[test]
fn two_threads_and_two_processes_download_once() {
    let (bytes, options) = (model(500_000, 11), options("twice"));
    let served = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        thread::sleep(Duration::from_millis(300));
        File { bytes: &served, etag: None, ranges: true, cut: None }.serve(request, stream);
    });
    let url = server.url("/m.gguf");
    let barrier = Arc::new(Barrier::new(2));
    let threads = [(); 2].map(|()| {
        let (url, options, barrier) = (url.clone(), options.clone(), barrier.clone());
        thread::spawn(move || {
            let mut waited = false;
            barrier.wait();
            let path = hub::resolve(&reference(&url), &options, &mut |update: &Update| {
                waited |= update.stage == Stage::Waiting;
                true
            });
            (path.unwrap(), waited)
        })
    });
    let results = threads.map(|thread| thread.join().unwrap());
    assert_eq!(results[0].0, results[1].0);
    assert_ne!(results[0].1, results[1].1, "one waits for the other");
    assert!(fs::read(&results[0].0).unwrap() == bytes);
    assert_eq!(server.requests().len(), 1);

    let other = server.url("/other.gguf");
    let children = [(); 2].map(|()| {
        let (other, options) = (other.clone(), options.clone());
        thread::spawn(move || result_of(&mut child(&other, &options)))
    });
    thread::sleep(Duration::from_millis(150));
    let paths = children.map(|child| child.join().unwrap());
    assert!(fs::read(&paths[0]).unwrap() == bytes, "{}", paths[0]);
    assert_eq!(paths[0], paths[1]);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_model_under_way_is_not_removed() {
    let options = options("busy");
    let server = Server::start(|_, _, stream| {
        thread::sleep(Duration::from_millis(500));
        reply(stream, "404 Not Found", &[], b"");
    });
    let url = server.url("/m.gguf");
    let download = {
        let (url, options) = (url.clone(), options.clone());
        thread::spawn(move || resolve(&url, &options))
    };
    while server.requests().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(hub::remove(&reference(&url), &options), Err(HubError::Busy { .. })));
    assert!(matches!(download.join().unwrap(), Err(HubError::Status { status: 404, .. })));
}

#[test]
fn a_damaged_cache_mends_itself() {
    let (bytes, options) = (model(10_000, 12), options("damaged"));
    let served = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        File { bytes: &served, etag: None, ranges: true, cut: None }.serve(request, stream)
    });
    let url = server.url("/m.gguf");
    let path = resolve(&url, &options).unwrap();
    for damage in ["short file", "bad manifest", "no manifest", "no file"] {
        let manifest = path.with_file_name("m.gguf.model.json");
        match damage {
            "short file" => fs::write(&path, b"GGUF").unwrap(),
            "bad manifest" => fs::write(&manifest, b"{\"files\": [").unwrap(),
            "no manifest" => fs::remove_file(&manifest).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        assert_eq!(hub::path_of(&reference(&url), &options).unwrap(), None, "{damage}");
        assert_eq!(resolve(&url, &options).unwrap(), path, "{damage}");
        assert!(fs::read(&path).unwrap() == bytes, "{damage}");
    }
}

#[test]
fn paths_are_the_users_own() {
    let options = options("paths");
    fs::create_dir_all(&options.cache_dir).unwrap();
    let path = options.cache_dir.join("mine.gguf");
    let name = path.to_str().unwrap();
    assert!(matches!(resolve(name, &options), Err(HubError::NoSuchFile { .. })));
    fs::write(&path, b"GGUF").unwrap();
    assert_eq!(resolve(name, &options).unwrap(), path);
    assert!(matches!(hub::remove(&reference(name), &options), Err(HubError::NotInCache { .. })));
    assert!(path.exists());
}
