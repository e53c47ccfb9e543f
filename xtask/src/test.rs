//! `cargo xtask test`: every test, here and on other instruction sets.

use std::process::Command;

use crate::setup::{self, AARCH64};
use crate::shell::{Result, Run, cargo, find, step};

/// Runs a WASI module in Node; as seen from a crate's folder, where cargo runs tests.
const WASI_RUNNER: &str = "node --no-warnings ../../xtask/src/wasi.mjs";

pub(crate) fn run() -> Result {
    let mut skipped = Vec::new();
    let model = step("get the test model", || Ok(setup::test_model()))?;
    let embedder = step("get the test embedder", || Ok(setup::test_embedder()))?;
    let reference = setup::absolute("FIRECREST_REF")?;
    if let Err(reason) = &model {
        skipped.push(format!("tests with a real model: {reason}"));
    }
    if let Err(reason) = &embedder {
        skipped.push(format!("tests with a real embedding model: {reason}"));
    }
    let with_data = |mut cargo: Command| {
        if let Ok(model) = &model {
            cargo.env("FIRECREST_TEST_MODEL", model);
        }
        if let Ok(embedder) = &embedder {
            cargo.env("FIRECREST_TEST_EMBEDDER", embedder);
        }
        if let Some(reference) = &reference {
            cargo.env("FIRECREST_REF", reference);
        }
        cargo
    };

    step("tests", || with_data(cargo("test --workspace --quiet")).run())?;

    if cfg!(not(target_arch = "aarch64")) {
        step("install what Arm tests need", setup::rust_targets)?;
        match setup::aarch64_emulator() {
            Ok(emulator) => step("kernels on 64-bit Arm, emulated", || {
                let variable =
                    |name: &str| format!("CARGO_TARGET_{}_{name}", AARCH64.replace('-', "_").to_uppercase());
                with_data(cargo("test --quiet --package firecrest-kernels --target"))
                    .arg(AARCH64)
                    .env(variable("LINKER"), "rust-lld")
                    .env(variable("RUNNER"), emulator)
                    .run()
            })?,
            Err(reason) => skipped.push(format!("kernels on 64-bit Arm: {reason}")),
        }
    }

    match find("node") {
        Some(_) => step("kernels in WebAssembly", || {
            setup::rust_targets()?;
            for features in ["+simd128", "+simd128,+relaxed-simd"] {
                cargo("test --quiet --package firecrest-kernels --tests --target wasm32-wasip1")
                    .env("CARGO_TARGET_WASM32_WASIP1_RUNNER", WASI_RUNNER)
                    .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", format!("-C target-feature={features}"))
                    .run()?;
            }
            Ok(())
        })?,
        None => skipped.push("kernels in WebAssembly: there is no node".to_owned()),
    }

    eprintln!("\nall tests passed");
    for skipped in skipped {
        eprintln!("NOT RUN: {skipped}");
    }
    Ok(())
}
