//! What goes wrong is told in one line, with an exit code that says what kind of wrong it is.

use std::fs;

use firecrest_testkit::gguf::{Builder, Value};

use crate::support::{Folder, firecrest, on_tiny, tiny};

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["run", "--no-such-option", "x"][..],
        &["dance"],
        &[],
        &["logits"],
        &["run", "--raw", "--system", "x", "y"],
        &["run", "--temperature", "warm", "x"],
        &["run", "--temperature", "-1", "x"],
        &["run", "--top-p", "2", "x"],
        &["run", "--threads", "0", "x"],
        &["run", "-m", "no-such-model", "x"],
        &["run", "-m", "ftp://example.com/model.gguf", "x"],
        &["run", "-m", "hf:nothing", "x"],
    ] {
        let ran = firecrest(args);
        assert!(!ran.failed(2).is_empty(), "{args:?}");
    }
    let ran = firecrest(on_tiny(&["run", "--chat-template", "no-such-template", "x"]));
    assert!(ran.failed(2).contains("chatml"), "{}", ran.stderr);
    let ran = firecrest(on_tiny(&["run", "--system", "x", "y"]));
    assert!(ran.failed(2).contains("--chat-template"), "{}", ran.stderr);
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["help", "bench"]] {
        let ran = firecrest(args);
        assert!(!ran.ok().is_empty() && ran.stderr.is_empty(), "{args:?}");
    }
    assert!(
        firecrest(["--help"]).ok().contains("Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted")
    );
}

#[test]
fn files_that_are_not_there_are_named() {
    for args in [
        &["inspect", "/no/such.gguf"][..],
        &["run", "-m", "/no/such.gguf", "x"],
        &["tokenize", "-m", "/no/such.gguf", "x"],
    ] {
        let ran = firecrest(args);
        let message = ran.failed(1);
        assert!(message.starts_with("firecrest: /no/such.gguf: can't be read: "), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
    let ran = firecrest(on_tiny(&["run", "-f", "/no/such.txt"]));
    assert!(ran.failed(1).contains("can't read /no/such.txt: "), "{}", ran.stderr);
    let folder = Folder::new();
    let latin = folder.file("latin-1.txt", b"caf\xe9");
    let ran = firecrest(on_tiny(&["run", "-f", latin.to_str().unwrap()]));
    assert!(ran.failed(1).contains("is not UTF-8: byte 3"), "{}", ran.stderr);
}

#[test]
fn hostile_files_are_refused_in_one_line() {
    let folder = Folder::new();
    let tiny = fs::read(tiny()).unwrap();
    let key =
        |key: &str, value: Value| Builder::new().key("general.architecture", "llama").key(key, value).bytes();
    for (name, contents) in [
        ("empty.gguf", vec![]),
        ("text.gguf", b"Once upon a time".to_vec()),
        ("cut.gguf", tiny[..tiny.len() - 1000].to_vec()),
        ("header.gguf", tiny[..100].to_vec()),
        ("many.gguf", Builder::new().claim_tensors(1 << 60).bytes()),
        ("array.gguf", key("x", Value::claimed_array(8, 1 << 60, b""))),
        ("architecture.gguf", Builder::new().key("general.architecture", "\x1b[31mred").bytes()),
    ] {
        let path = folder.file(name, contents);
        for command in ["run", "logits", "tokenize", "perplexity", "bench"] {
            let mut args = vec![command, "--model", path.to_str().unwrap()];
            match command {
                "logits" => args.extend(["--tokens", "1"]),
                "perplexity" => args.extend(["--file", path.to_str().unwrap()]),
                "bench" => {}
                _ => args.push("x"),
            }
            let ran = firecrest(args);
            let message = ran.failed(1);
            assert!(message.contains(name), "{command} {name}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            assert!(!message.contains('\x1b'), "{message:?}");
        }
    }
}
