//! Commands, and what can go wrong with them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fmt, io};

/// Why a task ended, for a person to read.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What a task comes to.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// `map_err(Failure::at(path))`: an I/O error with its file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
        move |error| Failure(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the root of the workspace the current directory, from wherever the task was called.
pub(crate) fn enter_workspace() -> Result {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    env::set_current_dir(root).map_err(Failure::at(root))
}

/// Returns cargo, as the one that runs this task.
pub(crate) fn cargo(arguments: &str) -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// Returns a command with arguments that have no spaces in them.
pub(crate) fn command(program: impl AsRef<OsStr>, arguments: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    command
}

/// Returns the folder that cargo builds in.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = cargo("metadata --no-deps --format-version 1").text()?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|error| Failure::new(format!("cargo metadata: {error}")))?;
    let folder = metadata["target_directory"].as_str();
    folder.map(PathBuf::from).ok_or_else(|| Failure::new("cargo metadata names no target directory"))
}

/// Returns where a program is, if it is on the path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Prints a heading, does something, and prints how long it took.
pub(crate) fn step<T>(name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\n== {name}");
    let start = Instant::now();
    let done = action().map_err(|failure| Failure::new(format!("{name}: {failure}")))?;
    eprintln!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(done)
}

/// Ways to run a command.
pub(crate) trait Run {
    /// Shows the command and runs it; a status other than zero is a failure.
    fn run(&mut self) -> Result;
    /// Returns what the command prints; a status other than zero is a failure.
    fn text(&mut self) -> Result<String>;
    /// Whether the command exists and ends well. It prints nothing.
    fn works(&mut self) -> bool;
}

impl Run for Command {
    fn run(&mut self) -> Result {
        let line = line(self);
        eprintln!("$ {line}");
        let status = self.status().map_err(|error| Failure::new(format!("`{line}`: {error}")))?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("`{line}`: {status}"))) }
    }

    fn text(&mut self) -> Result<String> {
        let line = line(self);
        let output = self
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| Failure::new(format!("`{line}`: {error}")))?;
        if !output.status.success() {
            return Err(Failure::new(format!("`{line}`: {}", output.status)));
        }
        String::from_utf8(output.stdout).map_err(|error| Failure::new(format!("`{line}`: {error}")))
    }

    fn works(&mut self) -> bool {
        let quiet = self.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={:?}", name.to_string_lossy(), value?.to_string_lossy()))
    });
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    variables.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}
