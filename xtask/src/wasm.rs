//! `cargo xtask wasm`: the module in all its builds, and the npm package round them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::setup;
use crate::shell::{Failure, Result, Run, cargo, command, find, step, target_dir};

/// The package.
pub(crate) const PACKAGE: &str = "packages/web";

/// The version of `wasm-bindgen` in `crates/wasm/Cargo.toml`, which the program has to share.
const WASM_BINDGEN: &str = "0.2.130";

/// The most that a module may take, in bytes.
const MAX_MODULE_BYTES: u64 = 2_000_000;

/// The most that the scripts may take, in bytes, compressed with brotli.
const MAX_SCRIPT_BYTES: u64 = 40_000;

/// The builds by the names that `packages/web` knows them by, with their features. Those with threads need a nightly
/// compiler, as the standard library has to be built with atomics.
const BUILDS: [(&str, &str, bool); 6] = [
    ("scalar", "", false),
    ("simd128", "+simd128", false),
    ("relaxed-simd", "+simd128,+relaxed-simd", false),
    ("scalar-threads", "", true),
    ("simd128-threads", "+simd128", true),
    ("relaxed-simd-threads", "+simd128,+relaxed-simd", true),
];

/// What the modules may use, as wasm-opt calls it.
const FEATURES: [&str; 9] = [
    "bulk-memory",
    "multivalue",
    "mutable-globals",
    "nontrapping-float-to-int",
    "reference-types",
    "relaxed-simd",
    "sign-ext",
    "simd",
    "threads",
];

/// What the linker is told for a memory that threads share.
const SHARED_MEMORY: &str = "-C link-arg=--shared-memory -C link-arg=--import-memory \
    -C link-arg=--max-memory=4294967296 -C link-arg=--export=__wasm_init_tls -C link-arg=--export=__tls_size \
    -C link-arg=--export=__tls_align -C link-arg=--export=__tls_base";

/// Builds the modules, all or those that are named, and the package.
pub(crate) fn run(names: &[String]) -> Result {
    let known = |name: &&String| BUILDS.iter().all(|(build, ..)| build != name);
    if let Some(name) = names.iter().find(known) {
        let names: Vec<_> = BUILDS.iter().map(|(name, ..)| *name).collect();
        return Err(Failure::new(format!("no build `{name}`; there are {}", names.join(", "))));
    }
    step("install Rust targets", setup::rust_targets)?;
    let bindgen = step("get wasm-bindgen", wasm_bindgen)?;
    step("get npm packages", npm_packages)?;
    let mut skipped = Vec::new();
    for (name, features, threads) in BUILDS {
        if !names.is_empty() && !names.iter().any(|asked| asked == name) {
            continue;
        }
        if threads && !has_nightly() {
            skipped.push(name);
            continue;
        }
        step(name, || module(&bindgen, name, features, threads))?;
    }
    step("package", || npm("run --silent build").run())?;
    sizes()?;
    for name in skipped {
        eprintln!("NOT BUILT: {name}: rustup has no nightly toolchain with rust-src");
    }
    Ok(())
}

/// One build: compiled, bound, optimised.
fn module(bindgen: &Path, name: &str, features: &str, threads: bool) -> Result {
    let target = "wasm32-unknown-unknown";
    // Names that say of which format a kernel is, for profiles; and messages without this machine's paths.
    let names = format!("-C symbol-mangling-version=v0{}", short_paths()?);
    let mut flags = format!("{names} -C target-feature=+bulk-memory,{features}");
    let mut build = if threads {
        flags = format!("{names} -C target-feature=+atomics,+bulk-memory,{features} {SHARED_MEMORY}");
        let mut build = command("rustup", "run nightly cargo build -Z build-std=std,panic_abort");
        // This is cargo of another toolchain, which must not find this one's compiler.
        build.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        build
    } else {
        cargo("build")
    };
    build.args(["--profile", "wasm", "--package", "firecrest-wasm", "--target", target]);
    if features.is_empty() {
        build.arg("--no-default-features");
        // Its vectors are loops; with all of them unrolled the module would be over its limit.
        build.args(["--config", r#"profile.wasm.package.firecrest-kernels.opt-level="s""#]);
    }
    build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags).run()?;

    let out = Path::new(PACKAGE).join("wasm").join(name);
    let built = target_dir()?.join(target).join("wasm/firecrest_wasm.wasm");
    command(bindgen, "--target web --out-dir").arg(&out).arg(&built).run()?;

    let module = out.join("firecrest_wasm_bg.wasm");
    let optimised = out.join("optimised.wasm");
    command("node", "node_modules/binaryen/bin/wasm-opt")
        // An operation on vectors is a function of its own, as in the source: inlined into what calls dozens of them, browsers
        // keep sums in memory, and products take half as long again.
        .arg("--no-inline=*firecrest_kernels*::isa::*::run*")
        // The stack grows down to address 0, so that nothing lives below 1024: constants move into loads.
        .args(["-Os", "--low-memory-unused", "--merge-similar-functions", "--dae-optimizing"])
        .arg("--optimize-added-constants-propagate")
        // What these find after all of that.
        .args(["--code-folding", "--coalesce-locals", "--reorder-locals", "--vacuum", "--reorder-functions"])
        .args(["--strip-debug", "--strip-producers", "--strip-target-features"])
        // All features would be too many: browsers lag behind in how a module may be encoded.
        .args(FEATURES.map(|feature| format!("--enable-{feature}")))
        .current_dir(PACKAGE)
        .arg(absolute(&module)?)
        .arg("--output")
        .arg(absolute(&out)?.join("optimised.wasm"))
        .run()?;
    fs::rename(&optimised, &module).map_err(Failure::at(&module))
}

/// What has the compiler leave out where the sources of dependencies lie.
fn short_paths() -> Result<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let Some(registries) = home.map(|home| home.join("registry/src")) else { return Ok(String::new()) };
    let mut flags = String::new();
    for entry in fs::read_dir(&registries).into_iter().flatten() {
        let folder = entry.map_err(Failure::at(&registries))?.path();
        // Flags are separated by spaces.
        if let Some(folder) = folder.to_str().filter(|folder| !folder.contains(' ')) {
            flags += &format!(" --remap-path-prefix={folder}/=");
        }
    }
    Ok(flags)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    env::current_dir().map(|root| root.join(path)).map_err(Failure::at(path))
}

/// Returns wasm-bindgen's program, installed where it is missing or of another version.
pub(crate) fn wasm_bindgen() -> Result<PathBuf> {
    let right = |program: &Path| {
        command(program, "--version").text().is_ok_and(|version| version.trim().ends_with(WASM_BINDGEN))
    };
    if let Some(program) = find("wasm-bindgen").filter(|program| right(program)) {
        return Ok(program);
    }
    let tools = target_dir()?.join("tools");
    let program = tools.join("bin").join(format!("wasm-bindgen{}", env::consts::EXE_SUFFIX));
    if !program.is_file() || !right(&program) {
        // It runs for a second, and takes minutes to optimise.
        cargo("install wasm-bindgen-cli --debug --force --version")
            .arg(format!("={WASM_BINDGEN}"))
            .arg("--root")
            .arg(&tools)
            .run()?;
    }
    Ok(program)
}

/// Returns npm, in the package's folder.
pub(crate) fn npm(arguments: &str) -> std::process::Command {
    let mut npm = command("npm", arguments);
    npm.current_dir(PACKAGE);
    npm
}

/// Installs what the package is built and tested with, as its lock file says.
pub(crate) fn npm_packages() -> Result {
    if Path::new(PACKAGE).join("node_modules/esbuild").is_dir() {
        return Ok(());
    }
    npm("ci --no-audit --no-fund --ignore-scripts").run()
}

fn has_nightly() -> bool {
    let sysroot = command("rustup", "run nightly rustc --print sysroot").text();
    sysroot.is_ok_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/std").is_dir())
}

/// Holds modules and scripts to their limits.
fn sizes() -> Result {
    let dist = Path::new(PACKAGE).join("dist");
    let mut scripts = 0;
    for entry in fs::read_dir(&dist).map_err(Failure::at(&dist))? {
        let path = entry.map_err(Failure::at(&dist))?.path();
        let bytes = fs::metadata(&path).map_err(Failure::at(&path))?.len();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("wasm") => {
                eprintln!("{}: {bytes} bytes, {} with brotli", path.display(), brotli(&path)?);
                if bytes > MAX_MODULE_BYTES {
                    let message = format!("{}: {bytes} bytes, at most {MAX_MODULE_BYTES}", path.display());
                    return Err(Failure::new(message));
                }
            }
            Some("js") => scripts += brotli(&path)?,
            _ => {}
        }
    }
    eprintln!("scripts: {scripts} bytes with brotli, of {MAX_SCRIPT_BYTES}");
    if scripts > MAX_SCRIPT_BYTES {
        return Err(Failure::new(format!("scripts take {scripts} bytes, at most {MAX_SCRIPT_BYTES}")));
    }
    Ok(())
}

/// The size of a file compressed with brotli, as Node does it.
fn brotli(path: &Path) -> Result<u64> {
    let program =
        "console.log(require('zlib').brotliCompressSync(require('fs').readFileSync(process.argv[1])).length)";
    let size = command("node", "-e").arg(program).arg(path).text()?;
    size.trim().parse().map_err(|_| Failure::new(format!("{}: brotli says {size}", path.display())))
}
