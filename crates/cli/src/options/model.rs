//! `--model` and `--offline`.

use std::path::PathBuf;

use clap::Args;
use firecrest::gguf::Gguf;
use firecrest::hub::{self, HubOptions, ModelRef};

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::progress::Download;

/// Which model.
#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    /// Model: a GGUF file, a catalogue name, hf:owner/repo[:quant|/file], or a URL. What is not on this machine is
    /// downloaded.
    #[arg(short, long, value_name = "MODEL", default_value = hub::default_model().name)]
    pub(crate) model: String,
    /// Use nothing but what is on this machine.
    #[arg(long)]
    pub(crate) offline: bool,
}

impl ModelArgs {
    /// Where the model's file is, once it is there.
    pub(crate) fn path(&self, interrupt: &Interrupt) -> Outcome<PathBuf> {
        fetch(&self.model, self.offline, interrupt)
    }

    /// The model's file, open: metadata and tensors, which need not be those of a model that can be run.
    pub(crate) fn gguf(&self, interrupt: &Interrupt) -> Outcome<Gguf> {
        Ok(Gguf::open(self.path(interrupt)?)?)
    }
}

/// Finds a model, downloading it where that is needed and allowed.
pub(crate) fn fetch(model: &str, offline: bool, interrupt: &Interrupt) -> Outcome<PathBuf> {
    let model = ModelRef::parse(model).map_err(|error| Failure::Usage(error.to_string()))?;
    // A file needs no cache, and so none of the settings that say where it is.
    if let ModelRef::Path(path) = model {
        return Ok(path);
    }
    let mut options = HubOptions::from_env()?;
    options.offline |= offline;
    let path = hub::resolve(&model, &options, &mut Download::new(interrupt.arm()));
    interrupt.disarm();
    Ok(path?)
}
