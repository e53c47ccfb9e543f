//! llama.cpp, by way of its Python package: pip can build it anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::setup::absolute;
use crate::shell::{Failure, Result, Run, target_dir};

/// What talks to llama.cpp.
pub(super) const SCRIPT: &str = "benchmarks/peer_llama_cpp.py";

/// A folder with a virtual environment, and models.
pub(super) struct Peer {
    folder: PathBuf,
}

impl Peer {
    /// Makes the virtual environment where it is not there yet, in the folder `FIRECREST_PEERS` or `target/peers`.
    pub(super) fn prepare() -> Result<Self> {
        let folder = match absolute("FIRECREST_PEERS")? {
            Some(folder) => folder,
            None => target_dir()?.join("peers"),
        };
        let peer = Self { folder };
        if Command::new(peer.python()).args(["-c", "import llama_cpp"]).works() {
            return Ok(peer);
        }
        let python = if cfg!(windows) { "python" } else { "python3" };
        Command::new(python).args(["-m", "venv"]).arg(peer.folder.join("venv")).run()?;
        let requirements = ["-m", "pip", "install", "--requirement", "benchmarks/requirements.txt"];
        Command::new(peer.python()).args(requirements).run().map_err(|failure| {
            Failure::new(format!("{failure}\nllama.cpp is compiled here: it needs a C++ compiler"))
        })?;
        Ok(peer)
    }

    pub(super) fn python(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" })
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
        let models = self.folder.join("models");
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
