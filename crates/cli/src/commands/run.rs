//! `firecrest run`: one prompt, one answer.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use firecrest::Model;
use firecrest::chat::Message;
use firecrest::generate::{FinishReason, GenerationConfig};
use firecrest::tokenizer::EncodeOptions;

use crate::answer::{ModelSession, stream};
use crate::conversation::Conversation;
use crate::failure::{Failure, OrFail, Outcome};
use crate::interrupt::Interrupt;
use crate::options::{ContextArgs, ModelArgs, PromptArgs, SamplingArgs, TemplateArgs};
use crate::speed;

/// Answers a prompt.
///
/// A model with a chat template gets the prompt as a user's message, others go on with the text.
///
/// Standard output is the text of the answer and nothing else; on a terminal a newline follows. Standard error ends with
/// a line of speeds; with --logprobs it is a line of JSON for each token instead:
/// {"token": id, "text": …, "logprob": x, "top": [[id, logprob], …]}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest run \"Why is the sky blue?\"
  firecrest run --temperature 0 --max-tokens 32 --raw \"Once upon a time\"
  git diff | firecrest run --system \"Write a commit message for this diff.\"
  firecrest run -m model.gguf -f prompt.txt > answer.txt
  firecrest run --prompt-cache book.kv -f book-and-question.txt")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// Go on with the text of the prompt: no chat template.
    #[arg(long, conflicts_with_all = ["system", "chat_template"])]
    raw: bool,
    /// With --raw: the prompt's control tokens, such as <|im_end|>, are meant.
    #[arg(long, requires = "raw")]
    parse_special: bool,
    /// Tell more than the speeds.
    #[arg(long)]
    stats: bool,
    /// Keep the KV cache of prompt and answer in a file: what the next prompt has in common with them is not computed again.
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Everything found, checked and loaded.
struct Plan {
    model: Model,
    session: ModelSession,
    /// Where the KV cache is kept.
    cache: Option<PathBuf>,
    tokens: Vec<u32>,
    config: GenerationConfig,
    loading: Duration,
    stats: bool,
}

impl RunArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        self.resolve(interrupt)?.run(interrupt, &mut io::stdout().lock())
    }

    fn resolve(&self, interrupt: &Interrupt) -> Outcome<Plan> {
        let mut config = self.sampling.config()?;
        let prompt = self.prompt.read()?;
        let path = self.model.path(interrupt)?;
        let started = Instant::now();
        let model = self.context.model(&path)?;
        let (tokens, system) = self.tokens(&model, prompt)?;
        config.context_overflow = self.sampling.overflow(system);
        let mut session =
            model.session(&self.context.options()).map_err(|error| Failure::load(&path, error))?;
        let cache = self.prompt_cache.clone();
        if let Some(cache) = cache.as_ref().filter(|cache| cache.exists()) {
            model.load_session(&mut session, cache).or_fail(|| "can't use the prompt cache".into())?;
        }
        let loading = started.elapsed();
        Ok(Plan { model, session, cache, tokens, config, loading, stats: self.stats })
    }

    /// The prompt, and how many tokens of it come before the user's.
    fn tokens(&self, model: &Model, prompt: String) -> Outcome<(Vec<u32>, usize)> {
        let template = if self.raw { None } else { self.template.template(model)? };
        let Some(template) = template else {
            if self.template.system.is_some() {
                return Err(Failure::Usage(
                    "the model has no chat template for --system; name one with --chat-template".into(),
                ));
            }
            let options = EncodeOptions { add_special: true, parse_special: self.parse_special };
            return Ok((model.tokenizer().encode(&prompt, options), 0));
        };
        let mut conversation = Conversation::new(template, self.template.system.clone());
        conversation.push(Message::user(prompt));
        let tokens = conversation.tokens(model)?;
        let system = conversation.system_tokens(model, &tokens)?;
        Ok((tokens, system))
    }
}

impl Plan {
    fn run(mut self, interrupt: &Interrupt, out: &mut (impl Write + IsTerminal)) -> Outcome {
        let answer = stream(&mut self.session, &self.tokens, &self.config, interrupt.arm(), out)?;
        interrupt.disarm();
        if out.is_terminal() && !answer.text.ends_with('\n') {
            writeln!(out)?;
        }
        if self.config.logprobs.is_none() {
            eprintln!("{}", speed::line(&answer.stats));
        }
        if self.stats {
            eprintln!(
                "{}",
                speed::details(&answer.stats, answer.finish_reason, self.session.model(), self.loading)
            );
        }
        if let Some(cache) = &self.cache {
            let saved = self.model.save_session(&self.session, cache);
            saved.or_fail(|| "can't keep the prompt cache".into())?;
        }
        match answer.finish_reason {
            FinishReason::Cancelled => Err(Failure::Interrupted),
            _ => Ok(()),
        }
    }
}
