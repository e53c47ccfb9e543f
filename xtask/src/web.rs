//! `cargo xtask web`: the demo page, built and served. `cargo xtask test-web`: the package in Node and in Chromium.

use crate::setup;
use crate::shell::{Failure, Result, Run, command, find, step};
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

/// Tests what was built, in Node and, where there is one, in Chromium.
pub(crate) fn test() -> Result {
    let model = setup::test_model().map_err(Failure::new)?;
    step("get npm packages", wasm::npm_packages)?;
    step("package in Node", || {
        command("node", "--test test/node/").current_dir(PACKAGE).env("FIRECREST_TEST_MODEL", &model).run()
    })?;
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
    step("package in Chromium", || {
        command("node", "--test test/browser/")
            .current_dir(PACKAGE)
            .env("FIRECREST_TEST_MODEL", &model)
            .env("FIRECREST_CHROMIUM", &chromium)
            .run()
    })
}

/// Measures Firecrest and wllama in one Chromium, turn by turn, with the test model and those that are named.
pub(crate) fn bench(options: &[String]) -> Result {
    let model = setup::test_model().map_err(Failure::new)?;
    step("get npm packages", wasm::npm_packages)?;
    command("node", "bench/bench.mjs").current_dir(PACKAGE).arg(model).args(options).run()
}
