//! The one place for automation: `cargo xtask <task>`.

mod bench_embed;
mod bench_peers;
mod ci;
mod instructions;
mod setup;
mod shell;
mod test;
mod wasm;
mod web;

use std::process::ExitCode;

use shell::{Failure, Result};

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  test         install what the tests need, and run them all
  ci           format, lints, documentation, other targets, then `test`, then the release build
  bench-peers  measure Firecrest and llama.cpp turn by turn, and record the results
  bench-embed  as bench-peers, of embeddings: Firecrest, torch, ONNX Runtime and llama.cpp (--rounds 3)
  instructions  count the instructions of the release program for a token, and compare with
               benchmarks/instructions.json; or make that file anew (--update)
  wasm [BUILD] build the WebAssembly modules, or those named, and the npm package
  web          build all of that, and serve the demo page
  test-web     test the built package in Node and in Chromium
  bench-web    measure Firecrest and wllama in Chromium turn by turn, and record the results

environment:
  FIRECREST_TEST_MODEL   GGUF file of SmolLM2-135M for the tests that run a real model (downloaded where not set)
  FIRECREST_TEST_EMBEDDER  folder of all-MiniLM-L6-v2 as Hugging Face has it (downloaded where not set)
  FIRECREST_REF          folder of full reference data, for the tests that know one
  FIRECREST_PEERS        folder for the virtual environment of bench-peers and its models (default: target/peers)
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next();
    let arguments: Vec<String> = arguments.collect();
    match run(task.as_deref(), &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Option<&str>, arguments: &[String]) -> Result {
    shell::enter_workspace()?;
    match (task, arguments) {
        (Some("test"), []) => test::run(),
        (Some("ci"), []) => ci::run(),
        (Some("bench-embed"), options) => bench_embed::run(options),
        (Some("bench-peers"), options) => bench_peers::run(options),
        (Some("instructions"), options) => instructions::run(options),
        (Some("wasm"), builds) => wasm::run(builds),
        (Some("web"), options) => web::serve(options),
        (Some("test-web"), []) => web::test(),
        (Some("bench-web"), options) => web::bench(options),
        (None | Some("help" | "--help" | "-h"), _) => {
            print!("{USAGE}\n{}", bench_peers::USAGE);
            Ok(())
        }
        (Some(task), arguments) => Err(Failure::new(format!(
            "no task `{}`\n\n{USAGE}",
            [&[task.to_owned()], arguments].concat().join(" ")
        ))),
    }
}
