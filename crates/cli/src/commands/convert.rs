//! `firecrest convert`: Hugging Face models to GGUF.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use firecrest::convert::{ConvertOptions, convert};
use firecrest::gguf::Format;

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::units;

/// Converts a Hugging Face model to GGUF.
///
/// The folder has config.json, *.safetensors, and tokenizer.json or vocab.txt. The file gets its name when it is whole.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest convert all-MiniLM-L6-v2 all-minilm-l6-v2.gguf
  firecrest convert --type f32 SmolLM2-135M smollm2-f32.gguf
  firecrest convert --type q8_0 --name \"My model\" ./model model-q8_0.gguf")]
pub(crate) struct ConvertArgs {
    /// The folder of the model.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Format of the matrices; vectors stay f32.
    #[arg(long = "type", visible_alias = "outtype", value_name = "TYPE", default_value = "f16", value_parser = format())]
    format: Format,
    /// Name of the model in the file [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]).map(|name| {
        let named = |format: &&Format| format.name().eq_ignore_ascii_case(&name);
        Format::ALL.iter().find(named).copied().unwrap_or(Format::F16)
    })
}

impl ConvertArgs {
    pub(crate) fn run(self, _: &Interrupt) -> Outcome {
        let mut options = ConvertOptions::default().with_format(self.format);
        options.name = self.name;
        let converted = convert(&self.folder, &self.out, &options).map_err(|error| Failure::Failed {
            what: format!("can't convert {}", self.folder.display()),
            cause: Some(Box::new(error)),
        })?;
        eprintln!(
            "{}: {}, {} tensors, {}",
            self.out.display(),
            converted.architecture,
            converted.tensors,
            units::bytes(converted.bytes)
        );
        Ok(())
    }
}
