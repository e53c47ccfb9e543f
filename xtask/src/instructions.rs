//! `cargo xtask instructions`: how many instructions the program takes for a token, counted by callgrind and compared with
//! `benchmarks/instructions.json`.
//!
//! A count repeats to a few parts in a hundred thousand, however busy the machine is, where a clock on a shared machine
//! tells regressions of a fifth at best. It knows nothing of memory and latency: it finds kernels whose code became
//! longer, not those that became slower for other reasons. Callgrind knows no AVX-512; the generic kernels are the same
//! source on every instruction set.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

use crate::bench_peers;
use crate::setup;
use crate::shell::{Failure, Result, Run, command, find, step};

const EXPECTED: &str = "benchmarks/instructions.json";

/// How much of the expected count may come on top of it.
const TOLERANCE: f64 = 0.02;

/// The shape of the model, with random weights: see `firecrest bench --synthetic`.
const SHAPE: &str = "tiny-5m";

/// The instruction sets, and what is counted on each. Halves without instructions for them take as long as all the rest.
const FORMATS: [(&str, &[&str]); 2] = [
    ("sse41", &["q4_0", "q4_1", "q8_0", "q4_k", "q6_k"]),
    ("avx2", &["q4_0", "q4_1", "q8_0", "q4_k", "q6_k", "f16"]),
];

/// What is counted: its name, the option of `firecrest bench` that asks for it, the one that leaves the other test out,
/// and tokens.
type TestOptions = (&'static str, &'static str, &'static str, u64);

const TESTS: [TestOptions; 2] = [("prefill", "--prompt", "--gen", 32), ("decode", "--gen", "--prompt", 4)];

/// Instructions for a token, by `<instruction set>/<format>/<test>`.
type Counts = BTreeMap<String, u64>;

/// Counts with the release program, and compares; `--update` makes the counts the expected ones.
pub(crate) fn run(arguments: &[String]) -> Result {
    let update = match arguments {
        [] => false,
        [option] if option == "--update" => true,
        _ => return Err(Failure::new("usage: cargo xtask instructions [--update]")),
    };
    valgrind().map_err(Failure::new)?;
    let program = step("build Firecrest", bench_peers::build)?;
    let counts = step("count instructions", || count(&program))?;
    if update { write(&counts) } else { compare(&counts) }
}

/// Compares the counts of a release program where they can be made; says so where not.
pub(crate) fn check(program: &Path) -> Result {
    match valgrind() {
        Ok(()) => compare(&count(program)?),
        Err(reason) => {
            eprintln!("NOT RUN: instruction counts: {reason}");
            Ok(())
        }
    }
}

/// Makes sure that there is valgrind, or says why there is none.
fn valgrind() -> std::result::Result<(), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the expected ones are those of x86-64 Linux".to_owned());
    }
    if find("valgrind").is_none() {
        setup::install("valgrind")?;
    }
    if command("valgrind", "--version").works() { Ok(()) } else { Err("valgrind doesn't start".to_owned()) }
}

/// Whether this processor has an instruction set; callgrind offers what it has.
#[cfg(target_arch = "x86_64")]
fn has(isa: &str) -> bool {
    match isa {
        "sse41" => is_x86_feature_detected!("sse4.1"),
        _ => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_isa: &str) -> bool {
    false
}

/// Every combination of instruction set, format and test.
fn cases() -> impl Iterator<Item = (&'static str, &'static str, TestOptions)> {
    FORMATS.iter().flat_map(|&(isa, formats)| {
        formats.iter().flat_map(move |&format| TESTS.map(|test| (isa, format, test)))
    })
}

/// Counts every case, as many at a time as there are processors.
fn count(program: &Path) -> Result<Counts> {
    let cases: Vec<_> = cases().filter(|(isa, ..)| has(isa)).collect();
    let (queue, counts) = (Mutex::new(cases), Mutex::new(Counts::new()));
    let work = || -> Result {
        // Neither lock is held by a thread that panics.
        while let Some((isa, format, test)) = queue.lock().ok().and_then(|mut queue| queue.pop()) {
            let (name, option, other, tokens) = test;
            // What start-up and warm-up take cancels out.
            let once = instructions(program, isa, format, [option, other], tokens, 1)?;
            let twice = instructions(program, isa, format, [option, other], tokens, 2)?;
            let count = twice.saturating_sub(once) / tokens;
            counts
                .lock()
                .map_err(|error| Failure::new(error.to_string()))?
                .insert(format!("{isa}/{format}/{name}"), count);
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| Failure::new("a thread that counts instructions panicked"))?
        })
    })?;
    counts.into_inner().map_err(|error| Failure::new(error.to_string()))
}

/// Instructions of one run of the program that measures so many times.
fn instructions(
    program: &Path,
    isa: &str,
    format: &str,
    [option, other]: [&str; 2],
    tokens: u64,
    repeat: u64,
) -> Result<u64> {
    let mut valgrind = command("valgrind", "--tool=callgrind --callgrind-out-file=/dev/null");
    valgrind.arg(program);
    valgrind.args(["bench", "--synthetic", &format!("{SHAPE}:{format}"), "--threads", "1"]);
    valgrind.args([option, &tokens.to_string(), other, "0", "--repeat", &repeat.to_string()]);
    let output = valgrind.env("FIRECREST_ISA", isa).output();
    let output = output.map_err(|error| Failure::new(format!("valgrind: {error}")))?;
    let log = String::from_utf8_lossy(&output.stderr);
    match collected(&log).filter(|_| output.status.success()) {
        Some(count) => Ok(count),
        None => Err(Failure::new(format!("{valgrind:?}: {}\n{log}", output.status))),
    }
}

/// The number of instructions in callgrind's messages: `==1== Collected : 123`.
fn collected(log: &str) -> Option<u64> {
    let (_, rest) = log.split_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn compiler() -> Result<String> {
    Ok(command("rustc", "--version").text()?.trim().to_owned())
}

fn write(counts: &Counts) -> Result {
    let all = cases().count();
    if counts.len() < all {
        let reason = format!("{} of {all} counts: this processor lacks an instruction set", counts.len());
        return Err(Failure::new(reason));
    }
    let data = json!({"compiler": compiler()?, "instructions_per_token": counts});
    fs::write(EXPECTED, format!("{data:#}\n")).map_err(Failure::at(Path::new(EXPECTED)))?;
    eprintln!("written to {EXPECTED}");
    Ok(())
}

fn compare(counts: &Counts) -> Result {
    let text = fs::read_to_string(EXPECTED).map_err(Failure::at(Path::new(EXPECTED)))?;
    let expected: Value =
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{EXPECTED}: {error}")))?;
    let (mut more, mut fewer) = (Vec::new(), Vec::new());
    for (case, &count) in counts {
        let Some(expected) = expected["instructions_per_token"][case].as_u64() else {
            return Err(Failure::new(format!(
                "{EXPECTED} has no {case}: `cargo xtask instructions --update`"
            )));
        };
        let change = count as f64 / expected as f64 - 1.0;
        eprintln!("{case:20} {count:>10} instructions/token, {:+.2} %", 100.0 * change);
        if change > TOLERANCE {
            more.push(case.as_str());
        } else if change < -TOLERANCE {
            fewer.push(case.as_str());
        }
    }
    if !fewer.is_empty() {
        eprintln!(
            "fewer than expected: {}. To hold on to that: `cargo xtask instructions --update`",
            fewer.join(", ")
        );
    }
    if more.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "more than {} % above {EXPECTED}: {}. If that is worth it: `cargo xtask instructions --update`",
        100.0 * TOLERANCE,
        more.join(", ")
    );
    let compiler = compiler()?;
    if expected["compiler"] != compiler.as_str() {
        message += &format!("\nthe expected counts are those of {}, not of {compiler}", expected["compiler"]);
    }
    Err(Failure::new(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_among_messages() {
        let log = "==7== Events    : Ir\n==7== Collected : 1471291895\n==7== \n==7== I   refs:      1,471,291,895\n";
        assert_eq!(collected(log), Some(1_471_291_895));
        assert_eq!(collected("==7== Collected : \n"), None);
    }

    #[test]
    fn every_case_has_an_expected_count() {
        let text = include_str!("../../benchmarks/instructions.json");
        let expected: Value = serde_json::from_str(text).unwrap();
        for (isa, format, (test, ..)) in cases() {
            let count = expected["instructions_per_token"][format!("{isa}/{format}/{test}")].as_u64();
            assert!(count > Some(100_000), "{isa}/{format}/{test}");
        }
    }
}
