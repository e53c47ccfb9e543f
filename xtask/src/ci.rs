//! `cargo xtask ci`: what a change must pass.

use std::fs;
use std::path::Path;

use crate::setup::{self, AARCH64};
use crate::shell::{Failure, Result, Run, cargo, find, step};
use crate::{bench_peers, instructions, test, wasm, web};

/// The most that the program may take, in bytes.
const MAX_PROGRAM_BYTES: u64 = 12_000_000;

pub(crate) fn run() -> Result {
    // Cheap checks first; nothing is compiled twice in one profile.
    step("install Rust targets", setup::rust_targets)?;
    step("format", || {
        cargo("fmt --all --check").run()?;
        cargo("fmt --manifest-path fuzz/Cargo.toml --check").run()
    })?;
    step("no C or C++ in the default build", pure_rust)?;
    step("lints", || cargo("clippy --workspace --all-targets --locked -- -D warnings").run())?;
    step("documentation", || cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings").run())?;
    step("kernels without std, on 64-bit Arm", || {
        cargo("check --package firecrest-kernels --no-default-features --target").arg(AARCH64).run()
    })?;
    step("engine on WebAssembly", || {
        cargo("check --package firecrest --target wasm32-wasip1").run()?;
        // Whether it compiles is all that is asked, and optimising takes several times as long.
        let profile =
            "--config profile.dev.opt-level=0 --config profile.dev.package.firecrest-kernels.opt-level=0";
        for features in ["", "--features simd128"] {
            cargo("build --package firecrest --target wasm32-unknown-unknown")
                .args(features.split_whitespace())
                .args(profile.split(' '))
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "")
                .run()?;
        }
        Ok(())
    })?;
    // This is `cargo xtask test`, the command of the README.
    test::run()?;
    package_for_browsers()?;
    let program = step("build the program", bench_peers::build)?;
    step("size of the program", || program_size(&program))?;
    step("instruction counts", || instructions::check(&program))
}

/// The package for browsers, with the build that most of them run.
fn package_for_browsers() -> Result {
    if find("npm").is_none()
        && let Err(reason) = setup::install("npm")
    {
        eprintln!("NOT RUN: the package for browsers: {reason}");
        return Ok(());
    }
    wasm::run(&["relaxed-simd".to_owned()])?;
    web::test()
}

/// Crates that compile C or C++, or look for a library of the system to link with.
const C_TOOLS: [&str; 8] = ["autotools", "bindgen", "cc", "cmake", "nasm-rs", "pkg-config", "ring", "vcpkg"];

/// Crates whose names end in `-sys` but that only declare what the operating system or the browser has.
const DECLARATIONS: [&str; 6] =
    ["core-foundation-sys", "js-sys", "linux-raw-sys", "security-framework-sys", "web-sys", "windows-sys"];

/// Checks that the default build needs no C toolchain on the platforms that most people have.
fn pure_rust() -> Result {
    for target in ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"] {
        let tree = cargo("tree --locked --package firecrest-cli --edges normal,build --prefix none --target")
            .arg(target)
            .text()?;
        let crates = tree.lines().filter_map(|line| line.split(' ').next());
        let found: Vec<_> = crates
            .filter(|name| C_TOOLS.contains(name) || name.ends_with("-sys") && !DECLARATIONS.contains(name))
            .collect();
        if !found.is_empty() {
            return Err(Failure::new(format!("{target}: the program depends on {}", found.join(", "))));
        }
    }
    Ok(())
}

fn program_size(program: &Path) -> Result {
    let bytes = fs::metadata(program).map_err(Failure::at(program))?.len();
    eprintln!("{}: {bytes} bytes of {MAX_PROGRAM_BYTES}", program.display());
    if bytes < MAX_PROGRAM_BYTES {
        Ok(())
    } else {
        Err(Failure::new(format!("{bytes} bytes, at most {MAX_PROGRAM_BYTES} are allowed")))
    }
}
