//! How tests run the program.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use serde_json::Value;

/// A file of the engine's tests, which come with reference logits.
pub(crate) fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/data/archs").join(name)
}

/// A tiny model with a working vocabulary, a token to begin with, and no chat template.
pub(crate) fn tiny() -> PathBuf {
    reference("llama-mha.gguf")
}

/// A directory that is removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("firecrest-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A new file.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program with some arguments, cut off from the network and from this machine's models.
pub(crate) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firecrest"));
    command.args(args);
    command.env("FIRECREST_CACHE", std::env::temp_dir().join("firecrest-cli-no-models"));
    command.env("HF_HUB_OFFLINE", "1");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output, of a program that did what it was asked for.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.ok();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "one line: {text}");
        serde_json::from_str(text).unwrap()
    }

    /// Standard error, of a program that failed with this code and printed nothing.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        &self.stderr
    }
}

/// Runs the program with nothing on standard input.
pub(crate) fn firecrest<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    with_input(command(args), "")
}

/// Runs a command with `input` on standard input.
pub(crate) fn with_input(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program that fails early reads nothing.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let ran = wait(child);
    writer.join().unwrap();
    ran
}

/// Waits for the end of a program and takes what it wrote.
pub(crate) fn wait(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Arguments, of which one is the tiny model's path.
pub(crate) fn on_tiny(args: &[&str]) -> Vec<String> {
    let model = ["--model".to_owned(), tiny().display().to_string()];
    let (command, rest) = args.split_first().unwrap();
    [command.to_string()].into_iter().chain(model).chain(rest.iter().map(|arg| arg.to_string())).collect()
}

/// Asserts that a JSON object has these fields in this order and no others.
#[track_caller]
pub(crate) fn assert_fields(object: &Value, fields: &[&str]) {
    let found: Vec<&String> =
        object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().collect();
    assert_eq!(found, fields);
}
