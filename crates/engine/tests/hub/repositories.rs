use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use firecrest::hub::{self, HubError, HubOptions};

use crate::server::{File, Server, reply};
use crate::{files, model, options, reference, resolve, sha256};

const LIST: &str = "/api/models/o/r/tree/main?recursive=true";

/// A hub with one repository, whose list may differ from what it has.
struct Hub {
    server: Server,
    options: HubOptions,
}

fn entry(path: &str, bytes: &[u8]) -> String {
    let len = bytes.len();
    let oid = sha256(bytes);
    format!(
        r#"{{"type":"file","oid":"git","size":{len},"path":"{path}","lfs":{{"oid":"{oid}","size":{len},"pointerSize":134}}}}"#
    )
}

impl Hub {
    fn start(test: &str, contents: &[(&str, Vec<u8>)], list: Vec<String>) -> Self {
        let contents: HashMap<_, _> = contents
            .iter()
            .map(|(path, bytes)| (format!("/o/r/resolve/main/{path}"), bytes.clone()))
            .collect();
        let contents = Arc::new(contents);
        let list = format!(r#"[{{"type":"directory","path":"dir","size":0}},{}]"#, list.join(","));
        let server = Server::start(move |_, request, stream| match contents.get(&request.target) {
            Some(bytes) => {
                File { bytes, etag: Some("\"tag\""), ranges: true, cut: None }.serve(request, stream)
            }
            None if request.target == LIST => reply(stream, "200 OK", &[], list.as_bytes()),
            None => reply(stream, "404 Not Found", &[], b"Entry not found"),
        });
        let mut options = options(test);
        options.endpoint = server.url("/");
        Self { server, options }
    }

    fn honest(test: &str, contents: &[(&str, Vec<u8>)]) -> Self {
        let list = contents.iter().map(|(path, bytes)| entry(path, bytes)).collect();
        Self::start(test, contents, list)
    }

    fn targets(&self) -> Vec<String> {
        self.server.requests().into_iter().map(|request| request.target).collect()
    }
}

#[test]
fn a_quantization_is_chosen_from_the_list() {
    let contents =
        [("README.md", b"#".to_vec()), ("m-Q4_K_M.gguf", model(2000, 1)), ("m-Q8_0.gguf", model(3000, 2))];
    let mut hub = Hub::honest("choose", &contents);
    let path = resolve("hf:o/r", &hub.options).unwrap();
    assert_eq!(fs::read(&path).unwrap(), contents[1].1);
    assert_eq!(hub.targets(), [LIST, "/o/r/resolve/main/m-Q4_K_M.gguf"]);
    let other = resolve("hf:o/r:q8_0", &hub.options).unwrap();
    assert_eq!(fs::read(&other).unwrap(), contents[2].1);

    // From now on without the hub, under every name.
    for offline in [false, true] {
        hub.options.offline = offline;
        assert_eq!(resolve("hf:o/r", &hub.options).unwrap(), path);
        assert_eq!(resolve("hf:o/r:Q4_K_M", &hub.options).unwrap(), path);
        assert_eq!(resolve("hf:o/r/m-Q4_K_M.gguf", &hub.options).unwrap(), path);
        assert_eq!(resolve("hf:o/r:Q8_0", &hub.options).unwrap(), other);
    }
    assert_eq!(hub.targets().len(), 4);
    let names: Vec<_> = hub::list(&hub.options).unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["hf:o/r/m-Q4_K_M.gguf", "hf:o/r/m-Q8_0.gguf"]);
    assert_eq!(resolve(&names[0], &hub.options).unwrap(), path);

    hub::remove(&reference("hf:o/r:Q4_K_M"), &hub.options).unwrap();
    assert!(!path.exists() && other.exists());
    // Offline, the name of the repository means what there is of it; else the best that the hub has.
    assert_eq!(resolve("hf:o/r", &hub.options).unwrap(), other);
    hub.options.offline = false;
    assert_eq!(resolve("hf:o/r", &hub.options).unwrap(), path);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let hub = Hub::honest("no-match", &[("m-Q4_0.gguf", model(9, 1)), ("mmproj-F16.gguf", model(9, 2))]);
    for (name, wanted) in [("hf:o/r:Q5_K_M", "Q5_K_M"), ("hf:o/r/x.gguf", "x.gguf")] {
        let error = resolve(name, &hub.options).unwrap_err().to_string();
        assert_eq!(error, format!("hf:o/r has no GGUF file for {wanted}; it has m-Q4_0.gguf"));
    }
    let error = resolve("hf:o/other", &hub.options).unwrap_err().to_string();
    assert!(error.ends_with("/api/models/o/other/tree/main: not found (status 404)"), "{error}");
    let hub = Hub::honest("no-gguf", &[("model.safetensors", vec![])]);
    let error = resolve("hf:o/r", &hub.options).unwrap_err().to_string();
    assert_eq!(error, "hf:o/r has no GGUF file that could be chosen");
}

#[test]
fn a_wrong_sum_or_size_is_an_error_and_leaves_nothing() {
    let (right, wrong) = (model(1000, 1), model(1000, 2));
    let hub = Hub::start("sum", &[("m-Q4_0.gguf", wrong.clone())], vec![entry("m-Q4_0.gguf", &right)]);
    let error = resolve("hf:o/r:Q4_0", &hub.options).unwrap_err();
    let expected = format!(
        "m-Q4_0.gguf has the SHA-256 {}, expected {}; it was deleted",
        sha256(&wrong),
        sha256(&right)
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(files(&hub.options), [""; 0]);

    let hub = Hub::start("size", &[("m-Q4_0.gguf", model(999, 1))], vec![entry("m-Q4_0.gguf", &right)]);
    let error = resolve("hf:o/r:Q4_0", &hub.options).unwrap_err();
    assert!(matches!(error, HubError::Size { expected: 1000, found: 999, .. }), "{error}");
    assert_eq!(files(&hub.options), [""; 0]);
}

#[test]
fn a_damaged_part_costs_a_download_and_no_more() {
    let right = model(10_000, 1);
    let hub = Hub::honest("damaged-part", &[("dir/m-Q4_0.gguf", right.clone())]);
    let dir = hub.options.cache_dir.join("models/hub/o/r/dir");
    for part in [model(5000, 9), model(10_000, 9), model(20_000, 9)] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("m-Q4_0.gguf.part"), part).unwrap();
        let path = resolve("hf:o/r", &hub.options).unwrap();
        assert_eq!(path, dir.join("m-Q4_0.gguf"));
        assert!(fs::read(&path).unwrap() == right);
        hub::remove(&reference("hf:o/r"), &hub.options).unwrap();
    }
    // A good part is used, and one that is whole needs no download.
    let before = hub.targets().len();
    for (len, requests) in [(5000, 2), (10_000, 1)] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("m-Q4_0.gguf.part"), &right[..len]).unwrap();
        let before = hub.targets().len();
        resolve("hf:o/r", &hub.options).unwrap();
        assert_eq!(hub.targets().len() - before, requests);
        hub::remove(&reference("hf:o/r"), &hub.options).unwrap();
    }
    assert_eq!(hub.server.requests()[before + 1].range_start(), Some(5000));
}

#[test]
fn all_shards_are_fetched_and_each_but_once() {
    let names = ["Q8_0/m-00001-of-00003.gguf", "Q8_0/m-00002-of-00003.gguf", "Q8_0/m-00003-of-00003.gguf"];
    let shards: Vec<_> = names.iter().zip(1..).map(|(name, seed)| (*name, model(4000, seed))).collect();
    let listed: Vec<_> = shards.iter().map(|(name, bytes)| entry(name, bytes)).collect();
    // At first the last shard is missing from the server.
    let hub = Hub::start("shards", &shards[..2], listed.clone());
    assert!(matches!(resolve("hf:o/r", &hub.options), Err(HubError::Status { status: 404, .. })));
    assert!(hub::list(&hub.options).unwrap().is_empty());
    let complete = Hub::start("unused", &shards, listed);
    let mut options = hub.options.clone();
    options.endpoint = complete.options.endpoint.clone();
    let path = resolve("hf:o/r:Q8_0", &options).unwrap();
    assert!(path.ends_with("Q8_0/m-00001-of-00003.gguf"));
    assert_eq!(complete.targets(), [LIST, "/o/r/resolve/main/Q8_0/m-00003-of-00003.gguf"]);
    for (name, bytes) in &shards {
        assert!(fs::read(path.with_file_name(&name[5..])).unwrap() == *bytes);
    }
    assert_eq!(hub::list(&options).unwrap()[0].bytes(), 12_000);
    assert_eq!(resolve("hf:o/r/Q8_0/m-00002-of-00003.gguf", &options).unwrap(), path);
    hub::remove(&reference("hf:o/r/Q8_0/m-00003-of-00003.gguf"), &options).unwrap();
    assert_eq!(files(&options), [""; 0]);

    // The same by URL, where no sums are known: the server says that nothing of the first shard is missing.
    let hub = Hub::start("shards-url", &shards[..1], vec![]);
    let url = |hub: &Hub| hub.server.url("/o/r/resolve/main/Q8_0/m-00001-of-00003.gguf");
    assert!(resolve(&url(&hub), &hub.options).is_err());
    assert_eq!(files(&hub.options), ["m-00001-of-00003.gguf", "m-00001-of-00003.gguf.part.json"]);
    assert!(resolve(&url(&hub), &hub.options).is_err());
    let shard = "/o/r/resolve/main/Q8_0/m-0000";
    let asked: Vec<_> = hub.server.requests().iter().map(|r| (r.target.clone(), r.range_start())).collect();
    let expected = [("1", None), ("2", None), ("1", Some(4000)), ("2", None)];
    assert_eq!(asked, expected.map(|(i, start)| (format!("{shard}{i}-of-00003.gguf"), start)));
}

#[test]
fn a_missing_shard_is_noticed_before_anything_is_fetched() {
    let name = "m-Q4_0-00001-of-00002.gguf";
    let hub = Hub::honest("missing-shard", &[(name, model(9, 1))]);
    let error = resolve("hf:o/r", &hub.options).unwrap_err().to_string();
    assert_eq!(error, format!("hf:o/r has no GGUF file for m-Q4_0-00002-of-00002.gguf; it has {name}"));
    assert_eq!(hub.targets(), [LIST]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in
        ["../../../evil-Q4_0.gguf", "/evil-Q4_0.gguf", "a/../../evil-Q4_0.gguf", "C:\\\\evil-Q4_0.gguf"]
    {
        let hub = Hub::start("evil", &[], vec![entry(name, b"GGUF")]);
        let error = resolve("hf:o/r", &hub.options).unwrap_err();
        assert!(matches!(error, HubError::UnsafeName { .. }), "{name}: {error}");
    }
}

#[test]
fn the_list_may_have_pages_and_lack_sums() {
    let bytes = model(5000, 1);
    let (served, sum) = (bytes.clone(), sha256(&bytes).to_string());
    let server = Server::start(move |_, request, stream| match request.target.as_str() {
        LIST => {
            let link = [("Link", "</api/models/o/r/tree/main?cursor=x>; rel=\"next\"")];
            reply(stream, "200 OK", &link, br#"[{"type":"file","path":"README.md","size":9}]"#);
        }
        "/api/models/o/r/tree/main?cursor=x" => {
            reply(stream, "200 OK", &[], br#"[{"type":"file","path":"m a-Q4_0.gguf"}]"#)
        }
        // The sum comes with the redirect to the storage server.
        "/o/r/resolve/main/m%20a-Q4_0.gguf" => {
            let headers = [("Location", "/storage/1?signature=x"), ("X-Linked-Etag", &format!("\"{sum}\""))];
            reply(stream, "302 Found", &headers, b"");
        }
        "/storage/1?signature=x" => {
            File { bytes: &served[1..], etag: None, ranges: true, cut: None }.serve(request, stream)
        }
        other => panic!("{other}"),
    });
    let mut options = options("pages");
    options.endpoint = server.url("");
    let error = resolve("hf:o/r", &options).unwrap_err();
    let (expected, found) = (sha256(&bytes), sha256(&bytes[1..]));
    assert!(
        matches!(&error, HubError::Checksum { expected: e, found: f, .. } if (*e, *f) == (expected, found)),
        "{error}"
    );
}

#[test]
fn a_list_that_is_none_is_a_protocol_error() {
    for (test, list) in
        [("no-json", "<html>"), ("other-json", "{\"error\": 1}"), ("nested", &"[".repeat(100_000))]
    {
        let list = list.to_owned();
        let server = Server::start(move |_, _, stream| reply(stream, "200 OK", &[], list.as_bytes()));
        let mut options = options(test);
        options.endpoint = server.url("");
        let error = resolve("hf:o/r", &options).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let bytes = model(1000, 1);
    let served = bytes.clone();
    let storage = Server::start(move |_, request, stream| {
        File { bytes: &served, etag: None, ranges: true, cut: None }.serve(request, stream)
    });
    let location = storage.url("/blob");
    let list = format!("[{}]", entry("m-Q4_0.gguf", &bytes));
    let hub = Server::start(move |_, request, stream| match request.target.as_str() {
        LIST => reply(stream, "307 Temporary Redirect", &[("Location", "/renamed")], b""),
        "/renamed" => reply(stream, "200 OK", &[], list.as_bytes()),
        _ => reply(stream, "302 Found", &[("Location", &location)], b""),
    });
    let mut options = options("token");
    options.endpoint = hub.url("");
    options.token = Some("hf_secret".into());
    resolve("hf:o/r", &options).unwrap();
    let authorization = |server: &Server| -> Vec<_> {
        server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
    };
    assert_eq!(authorization(&hub), [(); 3].map(|()| Some("Bearer hf_secret".to_owned())));
    assert_eq!(authorization(&storage), [None]);
    // By URL it is the same: the hub's own files may need the token, others must not see it.
    resolve(&hub.url("/o/r/resolve/main/x.gguf"), &options).unwrap();
    resolve(&storage.url("/blob.gguf"), &options).unwrap();
    assert_eq!(authorization(&hub)[3].as_deref(), Some("Bearer hf_secret"));
    assert_eq!(authorization(&storage), [None, None, None]);
    // A token that can't be sent is an error rather than a request without it.
    options.token = Some("bad\ntoken".into());
    assert!(resolve("hf:o/r2", &options).is_err());
    assert_eq!(hub.requests().len(), 4);
}
