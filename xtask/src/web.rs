//! `cargo xtask web`: the demo page, built and served. `cargo xtask test-web`: the package in Node and in Chromium.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup;
use crate::shell::{Failure, Result, Run, cargo, command, find, step, target_dir};
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
    step("classes in Node", || classes(None))?;
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
    match program("chromedriver", "chromium-driver") {
        Some(driver) => step("classes in Chromium", || classes(Some(&driver)))?,
        None => eprintln!("NOT RUN: tests of the classes in a browser: there is no chromedriver"),
    }
    let Some(chromium) = program("chromium", "chromium") else {
        eprintln!("NOT RUN: tests of the package in a browser: there is no chromium");
        return Ok(());
    };
    step("package in Chromium", || node("test/browser/").env("FIRECREST_CHROMIUM", &chromium).run())
}

/// Returns a program, installed from its Debian package where it is missing and can be.
fn program(name: &str, package: &str) -> Option<PathBuf> {
    find(name).or_else(|| {
        let installed = setup::install(package);
        installed.map_err(|reason| eprintln!("{reason}")).ok().and_then(|()| find(name))
    })
}

/// What `crates/wasm` exports, by wasm-bindgen's runner: in Node, or in the browser that a driver drives.
fn classes(driver: Option<&Path>) -> Result {
    let runner = wasm::wasm_bindgen()?.with_file_name("wasm-bindgen-test-runner");
    // As in `cargo xtask ci`: little is computed here, and optimising takes several times as long.
    let profile =
        "--config profile.dev.opt-level=0 --config profile.dev.package.firecrest-kernels.opt-level=0";
    let mut tests = cargo("test --package firecrest-wasm --tests --target wasm32-unknown-unknown");
    if let Some(driver) = driver {
        tests.env("CHROMEDRIVER", driver).env("WASM_BINDGEN_USE_BROWSER", "1");
    }
    tests
        .args(profile.split(' '))
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner)
        .run()
}

/// What embeddings are compared with, by names and versions on npm. All of what the former depends on would be hundreds of
/// megabytes, most of it for Node; a page takes the scripts of these two.
const PEERS: [(&str, &str); 2] =
    [("@huggingface/transformers", "4.3.1"), ("onnxruntime-web", "1.31.0-dev.20260914-8d85527a0")];

/// Measures Firecrest and its peers in one Chromium, turn by turn, with the test model and those that are named.
pub(crate) fn bench(options: &[String]) -> Result {
    let model = setup::test_model().map_err(Failure::new)?;
    step("get npm packages", wasm::npm_packages)?;
    // From here, so that paths of models are what the caller means.
    let mut bench = command("node", "");
    bench.arg(Path::new(PACKAGE).join("bench/bench.mjs")).arg(model).args(options);
    if options.iter().any(|option| option.starts_with("--embed")) {
        bench.arg("--tokenizer").arg(setup::test_embedder().map_err(Failure::new)?);
        bench.arg("--peers").arg(step("get transformers.js", peers)?);
    }
    bench.run()
}

/// Returns the folder that has [`PEERS`] in `node_modules`.
fn peers() -> Result<PathBuf> {
    let folder = target_dir()?.join("peers/web");
    for (name, version) in PEERS {
        let package = folder.join("node_modules").join(name);
        let right = |text: String| text.contains(&format!("\"version\": \"{version}\""));
        if fs::read_to_string(package.join("package.json")).is_ok_and(right) {
            continue;
        }
        fs::create_dir_all(&package).map_err(Failure::at(&package))?;
        let archive = command("npm", "pack --silent --pack-destination")
            .arg(&folder)
            .arg(format!("{name}@{version}"))
            .text()?;
        let archive = folder.join(archive.trim());
        command("tar", "--strip-components=1 -xzf").arg(&archive).arg("-C").arg(&package).run()?;
        fs::remove_file(&archive).map_err(Failure::at(&archive))?;
    }
    Ok(folder)
}
