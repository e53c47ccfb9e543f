//! The hub against a server that does everything servers do when they go wrong.
#![cfg(all(feature = "hub", not(target_family = "wasm")))]

mod catalogue;
mod downloads;
mod failures;
mod repositories;
mod server;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firecrest::hub::{self, HubError, HubOptions, ModelRef, Progress, Sha256Sum, Update};
use sha2::{Digest, Sha256};

/// Returns options with an empty cache of the test's own, and little patience.
fn options(test: &str) -> HubOptions {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub").join(test);
    let _ = fs::remove_dir_all(&dir);
    let mut options = HubOptions::new(dir);
    options.retries = 3;
    options.backoff = Duration::from_millis(1);
    options.connect_timeout = Duration::from_secs(5);
    options.idle_timeout = Duration::from_secs(5);
    options.pip = Vec::new();
    options
}

fn reference(text: &str) -> ModelRef {
    ModelRef::parse(text).unwrap()
}

/// Resolves a model without looking at the progress.
fn resolve(model: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    hub::resolve(&reference(model), options, &mut |_: &Update| true)
}

/// Some bytes that pass for a GGUF file, different for every `seed`.
fn model(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut bytes = b"GGUF".to_vec();
    bytes.resize_with(len, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes
}

fn sha256(bytes: &[u8]) -> Sha256Sum {
    Sha256Sum::from_bytes(Sha256::digest(bytes).into())
}

/// Returns the names of all files in a cache, apart from locks.
fn files(options: &HubOptions) -> Vec<String> {
    let (mut names, mut pending) = (Vec::new(), vec![options.cache_dir.join("models")]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.ends_with(".locks") {
                continue;
            }
            match path.is_dir() {
                true => pending.push(path),
                false => names.push(path.file_name().unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    names.sort();
    names
}

/// Records what it hears, and stops at a number of bytes.
#[derive(Default)]
struct Recorder {
    stop_at: Option<u64>,
    updates: Vec<(hub::Stage, u64, Option<u64>)>,
    retries: Vec<String>,
    fallbacks: Vec<String>,
}

impl Progress for Recorder {
    fn update(&mut self, update: &Update<'_>) -> bool {
        self.updates.push((update.stage, update.done, update.total));
        update.stage != hub::Stage::Downloading || self.stop_at.is_none_or(|stop| update.done < stop)
    }

    fn retrying(&mut self, error: &HubError, _: Duration) {
        self.retries.push(error.to_string());
    }

    fn falling_back(&mut self, failed: &str, error: &HubError, next: &str) {
        self.fallbacks.push(format!("{failed} → {next}: {error}"));
    }
}

/// Starts this program again as a process of its own that resolves one model.
fn child(model: &str, options: &HubOptions) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_process", "--ignored", "--nocapture"]);
    command.env("HUB_TEST_MODEL", model).env("HUB_TEST_CACHE", &options.cache_dir);
    command
}

/// Returns what [`child_process`] printed.
fn result_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = text.split_once("RESULT<").and_then(|(_, rest)| rest.split_once(">RESULT"));
    result.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).0.to_owned()
}

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_process() {
    let Ok(model) = std::env::var("HUB_TEST_MODEL") else { return };
    let mut options = HubOptions::new(std::env::var_os("HUB_TEST_CACHE").unwrap());
    options.retries = 0;
    match resolve(&model, &options) {
        Ok(path) => println!("RESULT<{}>RESULT", path.display()),
        Err(error) => println!("RESULT<{error}>RESULT"),
    }
}
