//! `cargo xtask web`: the demo page, built and served. `cargo xtask test-web`: the package in Node and in Chromium.

use crate::setup;
use crate::shell::{Failure, Result, Run, cargo, command, find, step};
use crate::wasm::{self, PACKAGE};

/// Builds everything and serves the demo page until it is interrupted; `--no-build` serves what was built.
pub(crate) fn serve(options: &[String]) -> Result {
    match options {
        [] => wasm::run(&[])?,
        [option] if option == "--no-build" => {}
        _ => return Err(Failure::new("usage: cargo xtask web [--no-build]")),
    }
    command("node", "demo/serve.mjs").current_dir(PACKAGE).run()
}

/// Tests what was built: the classes and the package in Node and, where there is one, the package in Chromium.
pub(crate) fn test() -> Result {
    let model = setup::test_model().map_err(Failure::new)?;
    step("get npm packages", wasm::npm_packages)?;
    step("classes in Node", classes)?;
    // Node 20 has relaxed SIMD behind a flag, which later ones do not know.
    let flag = "--experimental-wasm-relaxed-simd";
    let flagged = command("node", flag).args(["-e", "0"]).works();
    let node = |tests: &str| {
        let mut node = command("node", if flagged { flag } else { "" });
        node.arg("--test");
        node.arg(tests).current_dir(PACKAGE).env("FIRECREST_TEST_MODEL", &model);
        node
    };
    step("package in Node", || node("test/node/").run())?;
    let chromium = find("chromium").or_else(|| {
        setup::install("chromium")
            .map_err(|reason| eprintln!("{reason}"))
            .ok()
            .and_then(|()| find("chromium"))
    });
    let Some(chromium) = chromium else {
        eprintln!("NOT RUN: tests in a browser: there is no chromium");
        return Ok(());
    };
    step("package in Chromium", || node("test/browser/").env("FIRECREST_CHROMIUM", &chromium).run())
}

/// What `crates/wasm` exports, by wasm-bindgen's runner.
fn classes() -> Result {
    let runner = wasm::wasm_bindgen()?.with_file_name("wasm-bindgen-test-runner");
    // As in `cargo xtask ci`: little is computed here, and optimising takes several times as long.
    let profile =
        "--config profile.dev.opt-level=0 --config profile.dev.package.firecrest-kernels.opt-level=0";
    cargo("test --package firecrest-wasm --tests --target wasm32-unknown-unknown")
        .args(profile.split(' '))
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner)
        .run()
}

/// Measures Firecrest and wllama in one Chromium, turn by turn, with the test model and those that are named.
pub(crate) fn bench(options: &[String]) -> Result {
    let model = setup::test_model().map_err(Failure::new)?;
    step("get npm packages", wasm::npm_packages)?;
    command("node", "bench/bench.mjs").current_dir(PACKAGE).arg(model).args(options).run()
}
