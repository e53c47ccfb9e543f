//! `pull`, `list` and `remove`, against a server of our own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::{fs, thread};

use serde_json::json;

use crate::support::{Folder, assert_fields, command, tiny, with_input};

/// Serves one file, whatever is asked for, as long as the tests run. Returns its URL.
fn serve(contents: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tiny.gguf", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head = lines.next().is_some_and(|request| request.starts_with("HEAD"));
            let _ = lines.take_while(|line| !line.is_empty()).count();
            let header =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", contents.len());
            let body: &[u8] = if head { &[] } else { &contents };
            let _ = stream.write_all(header.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    url
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let cache = Folder::new();
    let contents = fs::read(tiny()).unwrap();
    let url = serve(contents.clone());
    let firecrest = |args: &[&str]| {
        let mut command: Command = command(args);
        command.env("FIRECREST_CACHE", cache.path()).env_remove("HF_HUB_OFFLINE");
        with_input(command, "")
    };

    let ran = firecrest(&["pull", "--offline", &url]);
    assert!(ran.failed(1).contains("offline"), "{}", ran.stderr);
    let ran = firecrest(&["pull", &url]);
    let path = ran.ok().trim_end().to_owned();
    assert_eq!(fs::read(&path).unwrap(), contents);
    assert!(ran.stderr.contains("downloading tiny.gguf (536.4 kB)"), "{}", ran.stderr);
    assert_eq!(firecrest(&["pull", "--offline", &url]).ok().trim_end(), path);

    let json = firecrest(&["list", "--json"]).json();
    assert_fields(&json, &["models"]);
    let model = &json["models"][0];
    assert_fields(model, &["name", "source", "bytes", "fetched", "files"]);
    assert_eq!((&model["name"], &model["bytes"]), (&json!(url), &json!(contents.len())));
    assert_fields(&model["files"][0], &["path", "bytes", "sha256"]);
    assert_eq!(model["files"][0]["path"], json!(path));
    let ran = firecrest(&["list"]);
    assert_eq!(ran.ok(), format!("{url}  536.4 kB  {path}\n"));

    let ran = firecrest(&["run", "--offline", "-m", &url, "--temperature", "0", "-n", "3", "the cat"]);
    assert!(!ran.ok().is_empty());

    let ran = firecrest(&["remove", &url]);
    assert!(ran.ok().is_empty() && ran.stderr.starts_with(&format!("removed {url}: 53")), "{}", ran.stderr);
    assert_eq!(firecrest(&["list", "--json"]).json(), json!({"models": []}));
    assert!(firecrest(&["remove", &url]).failed(1).contains("not in the cache"));
    let own = tiny();
    assert!(firecrest(&["remove", own.to_str().unwrap()]).failed(1).contains("does not belong to the cache"));
    assert!(own.exists());
}

#[test]
fn the_catalogue_is_listed() {
    let ran = with_input(command(["list", "--catalogue"]), "");
    assert!(ran.ok().starts_with("smollm2-135m      98.4 MB  Apache-2.0  "), "{}", ran.stdout);
}

#[test]
fn the_default_model_is_not_fetched_offline() {
    let ran = with_input(command(["run", "--offline", "hi"]), "");
    assert!(ran.failed(1).contains("smollm2-135m is not in the cache"), "{}", ran.stderr);
}
