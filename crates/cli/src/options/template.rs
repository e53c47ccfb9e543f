//! `--system` and `--chat-template`.

use std::path::Path;

use clap::Args;
use firecrest::Model;
use firecrest::chat::ChatTemplate;

use crate::failure::{Failure, Outcome};
use crate::files::read_text;

/// How messages become a prompt.
#[derive(Args, Debug)]
pub(crate) struct TemplateArgs {
    /// Instructions for the whole conversation.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Chat template instead of the model's own: a file with Jinja source, another template of the model's file, or
    /// alpaca, chatml, gemma, llama2, llama3, mistral, phi3 or vicuna.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<String>,
}

impl TemplateArgs {
    /// The template that is asked for, else that of the model, if it has one.
    pub(crate) fn template(&self, model: &Model) -> Outcome<Option<ChatTemplate>> {
        let Some(name) = &self.chat_template else { return Ok(model.chat_template()?) };
        let metadata = model.gguf().metadata();
        if let Some(template) = ChatTemplate::builtin(name) {
            return Ok(Some(template.with_vocabulary(metadata)?));
        }
        if let Some(template) = ChatTemplate::named_from_metadata(metadata, name)? {
            return Ok(Some(template));
        }
        if !Path::new(name).exists() {
            let builtin: Vec<_> = ChatTemplate::builtin_names().collect();
            return Err(Failure::Usage(format!(
                "no chat template {name}: it is neither a file, nor in the model, nor one of {}",
                builtin.join(", ")
            )));
        }
        let template = ChatTemplate::new(name, read_text(Path::new(name))?)?;
        Ok(Some(template.with_vocabulary(metadata)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_builtin_template() {
        use clap::CommandFactory;
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            _template: TemplateArgs,
        }
        let help = Cli::command().render_long_help().to_string();
        for name in ChatTemplate::builtin_names() {
            assert!(help.contains(name), "{name}");
        }
    }
}
