//! llama.cpp, by way of its Python package: pip can build it anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::options::InstructionSet;
use crate::setup::absolute;
use crate::shell::{Failure, Result, Run, target_dir};

/// What talks to llama.cpp.
pub(super) const SCRIPT: &str = "benchmarks/peer_llama_cpp.py";

/// What keeps llama.cpp's build to AVX2.
const AVX2_ONLY: &str =
    "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=OFF -DGGML_BMI2=ON";

/// A folder with virtual environments, and models.
pub(super) struct Peer {
    folder: PathBuf,
    isa: InstructionSet,
}

impl Peer {
    /// Makes the virtual environment where it is not there yet, in the folder `FIRECREST_PEERS` or `target/peers`.
    pub(super) fn prepare(isa: InstructionSet) -> Result<Self> {
        let folder = match absolute("FIRECREST_PEERS")? {
            Some(folder) => folder,
            None => target_dir()?.join("peers"),
        };
        let peer = Self { folder, isa };
        if !Command::new(peer.python()).args(["-c", "import llama_cpp"]).works() {
            peer.build()?;
        }
        // A build that is not what its folder says would be measured as such.
        let described = peer.describe()?;
        let has_avx512 = described["system_info"].as_str().is_some_and(|info| info.contains("AVX512 = 1"));
        if isa == InstructionSet::Avx2 && has_avx512 {
            let venv = peer.venv();
            return Err(Failure::new(format!("{}: llama.cpp is built for AVX-512", venv.display())));
        }
        Ok(peer)
    }

    fn build(&self) -> Result {
        let python = if cfg!(windows) { "python" } else { "python3" };
        Command::new(python).args(["-m", "venv"]).arg(self.venv()).run()?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--requirement", "benchmarks/requirements.txt"]);
        if self.isa == InstructionSet::Avx2 {
            // pip would take the other build out of its cache.
            pip.arg("--no-cache-dir").env("CMAKE_ARGS", AVX2_ONLY);
        }
        pip.run().map_err(|failure| {
            Failure::new(format!("{failure}\nllama.cpp is compiled here: it needs a C++ compiler"))
        })
    }

    fn venv(&self) -> PathBuf {
        self.folder.join(match self.isa {
            InstructionSet::Native => "venv",
            InstructionSet::Avx2 => "venv-avx2",
        })
    }

    pub(super) fn python(&self) -> PathBuf {
        self.venv().join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
    }

    /// The folder of models, which may not be there yet.
    pub(super) fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    /// The versions of the peer, and the date.
    pub(super) fn describe(&self) -> Result<Value> {
        super::json(self.script("describe"))
    }

    /// Returns the model in a format, made by llama.cpp's own quantizer.
    pub(super) fn quantized(&self, source: &Path, format: &str) -> Result<PathBuf> {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(&format!(".{format}.gguf")) {
            return Ok(source.to_owned());
        }
        let models = self.models();
        fs::create_dir_all(&models).map_err(Failure::at(&models))?;
        let stem = name.strip_suffix(".gguf").unwrap_or(&name);
        let model = models.join(format!("{stem}.to.{format}.gguf"));
        if !model.is_file() {
            let part = model.with_extension("part");
            self.script("quantize")
                .arg("--model")
                .arg(source)
                .args(["--format", format, "--out"])
                .arg(&part)
                .run()?;
            fs::rename(&part, &model).map_err(Failure::at(&model))?;
        }
        Ok(model)
    }

    fn script(&self, task: &str) -> Command {
        let mut command = Command::new(self.python());
        command.arg(SCRIPT).arg(task);
        command
    }
}
