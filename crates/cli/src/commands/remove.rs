//! `firecrest remove`: deletes what was downloaded.

use clap::Args;
use firecrest::hub::{self, HubOptions, ModelRef};

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::units;

/// Deletes downloaded models, unfinished downloads included.
///
/// Files given by path are never deleted.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest remove smollm2-135m
  firecrest remove hf:owner/repo:Q4_K_M")]
pub(crate) struct RemoveArgs {
    /// Models, as firecrest list names them.
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
}

impl RemoveArgs {
    pub(crate) fn run(self, _: &Interrupt) -> Outcome {
        let options = HubOptions::from_env()?;
        for model in &self.models {
            let model = ModelRef::parse(model).map_err(|error| Failure::Usage(error.to_string()))?;
            let freed = hub::remove(&model, &options)?;
            eprintln!("removed {model}: {}", units::bytes(freed));
        }
        Ok(())
    }
}
