//! `firecrest chat`: a conversation, turn by turn.

mod input;
mod slash;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use firecrest::Model;
use firecrest::chat::{ChatTemplate, Message};
use firecrest::generate::{FinishReason, GenerationConfig, Output};
use firecrest::hub::HubOptions;

use crate::answer::{ModelSession, stream};
use crate::conversation::Conversation;
use crate::failure::{Failure, OrFail, Outcome};
use crate::files::{read_text, write_whole};
use crate::interrupt::Interrupt;
use crate::options::{ContextArgs, ModelArgs, SamplingArgs, TemplateArgs};
use crate::output::printable;
use crate::speed;
use input::Input;
use slash::Slash;

/// Talks with a model.
///
/// Ctrl-C stops an answer; pressed again, or at the prompt, it leaves. Lines that begin with / are commands: /help tells
/// them. A line that ends with \ goes on in the next. Where standard input is no terminal, each line is a message, and
/// standard output gets the answers alone, each followed by a newline.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest chat
  firecrest chat -m hf:owner/repo:Q4_K_M --system \"Answer in French.\" --temperature 0.4
  firecrest chat --context-overflow shift --ctx 2048")]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// Go on from a conversation that /save wrote.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Tell the speeds after each answer.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// A conversation under way.
struct Chat<'a> {
    model: Model,
    session: ModelSession,
    conversation: Conversation,
    sampling: &'a SamplingArgs,
    config: GenerationConfig,
    stats: bool,
    loading: Duration,
    last: Option<Output>,
    interrupt: &'a Interrupt,
}

impl ChatArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let mut chat = self.resolve(interrupt)?;
        let history = HubOptions::from_env().ok().map(|options| options.cache_dir.join("chat-history.txt"));
        let mut input = Input::open(history)?;
        if input.is_interactive() {
            eprintln!("{}: /help tells the commands, Ctrl-D leaves", printable(&self.model.model));
        }
        let mut out = io::stdout().lock();
        while let Some(line) = input.next()? {
            let done = match Slash::parse(&line) {
                Some(Ok(Slash::Quit)) => break,
                Some(Ok(slash)) => chat.obey(slash, &mut out),
                Some(Err(unknown)) => Err(Failure::new(unknown)),
                None if line.trim().is_empty() => Ok(()),
                None => chat.answer(slash::message(&line), &mut out),
            };
            match done {
                Err(failure @ Failure::Failed { .. }) if input.is_interactive() => drop(failure.report()),
                done => done?,
            }
        }
        Ok(())
    }

    fn resolve<'a>(&'a self, interrupt: &'a Interrupt) -> Outcome<Chat<'a>> {
        let config = self.sampling.config()?;
        let path = self.model.path(interrupt)?;
        let started = Instant::now();
        let model = self.context.model(&path)?;
        let template = self.template.template(&model)?.ok_or_else(|| {
            let names: Vec<_> = ChatTemplate::builtin_names().collect();
            Failure::Usage(format!(
                "{} has no chat template; name one with --chat-template: {}",
                path.display(),
                names.join(", ")
            ))
        })?;
        let mut conversation = Conversation::new(template, self.template.system.clone());
        if let Some(file) = &self.load {
            conversation.replace(load(file)?);
        }
        let session = model.session(&self.context.options()).map_err(|error| Failure::load(&path, error))?;
        Ok(Chat {
            session,
            model,
            conversation,
            sampling: &self.sampling,
            config,
            stats: self.stats,
            loading: started.elapsed(),
            last: None,
            interrupt,
        })
    }
}

impl Chat<'_> {
    /// Answers a message. One that cannot be answered is forgotten.
    fn answer(&mut self, message: &str, out: &mut (impl Write + IsTerminal)) -> Outcome {
        self.conversation.push(Message::user(message));
        let answer = self.generate(out).inspect_err(|_| self.conversation.pop())?;
        self.conversation.push(Message::assistant(answer.text.as_str()));
        if !answer.text.ends_with('\n') {
            writeln!(out)?;
        }
        out.flush()?;
        match answer.finish_reason {
            FinishReason::ContextFull => {
                eprintln!("(the context is full: /reset, or --context-overflow shift)")
            }
            FinishReason::Cancelled => eprintln!("(stopped)"),
            _ => {}
        }
        if self.stats {
            eprintln!("{}", speed::line(&answer.stats));
        }
        self.last = Some(answer);
        Ok(())
    }

    fn generate(&mut self, out: &mut impl Write) -> Outcome<Output> {
        let tokens = self.conversation.tokens(&self.model)?;
        let system = self.conversation.system_tokens(&self.model, &tokens)?;
        self.config.context_overflow = self.sampling.overflow(system);
        let answer = stream(&mut self.session, &tokens, &self.config, self.interrupt.arm(), out);
        self.interrupt.disarm();
        answer
    }

    fn obey(&mut self, slash: Slash, out: &mut impl Write) -> Outcome {
        match slash {
            Slash::Help => write!(out, "{}", slash::HELP)?,
            Slash::Reset => self.conversation.clear(),
            Slash::System(None) => writeln!(out, "{}", self.conversation.system().unwrap_or("(none)"))?,
            Slash::System(Some(text)) => self.conversation.set_system(Some(text)),
            Slash::Save(path) => save(&path, self.conversation.messages())?,
            Slash::Load(path) => self.conversation.replace(load(&path)?),
            Slash::Stats => match &self.last {
                None => writeln!(out, "(no answer yet)")?,
                Some(Output { stats, finish_reason, .. }) => {
                    writeln!(out, "{}", speed::line(stats))?;
                    let details = speed::details(stats, *finish_reason, self.session.model(), self.loading);
                    writeln!(out, "{details}")?;
                }
            },
            Slash::Quit => {}
        }
        Ok(out.flush()?)
    }
}

/// Writes messages as a JSON array, in the form of the OpenAI API.
fn save(path: &Path, messages: Vec<Message>) -> Outcome {
    let messages = messages.into_iter().map(Message::into_json).collect::<Vec<_>>();
    let mut text = serde_json::to_vec_pretty(&messages)?;
    text.push(b'\n');
    write_whole(path, &text)
}

fn load(path: &Path) -> Outcome<Vec<Message>> {
    let what = || format!("{} is not a conversation", path.display());
    let messages: Vec<serde_json::Value> = serde_json::from_str(&read_text(path)?).or_fail(what)?;
    messages.into_iter().map(Message::try_from).collect::<Result<_, _>>().or_fail(what)
}
