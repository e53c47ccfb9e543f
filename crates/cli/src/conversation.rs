//! Messages, and the tokens that a chat template makes of them.

use firecrest::Model;
use firecrest::chat::{ChatInput, ChatTemplate, Message};
use firecrest::tokenizer::{EncodeOptions, Tokenizer};

use crate::failure::Outcome;

/// A conversation with a model.
#[derive(Debug)]
pub(crate) struct Conversation {
    template: ChatTemplate,
    system: Option<String>,
    /// What was said, without the system's instructions.
    turns: Vec<Message>,
}

impl Conversation {
    pub(crate) fn new(template: ChatTemplate, system: Option<String>) -> Self {
        Self { template, system, turns: Vec::new() }
    }

    pub(crate) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    pub(crate) fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.turns.push(message);
    }

    /// Takes back what was said last.
    pub(crate) fn pop(&mut self) {
        self.turns.pop();
    }

    /// Forgets what was said; the system's instructions stay.
    pub(crate) fn clear(&mut self) {
        self.turns.clear();
    }

    /// All messages, the system's instructions first.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::system(text.as_str()));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// Goes on from these messages.
    pub(crate) fn replace(&mut self, mut messages: Vec<Message>) {
        self.system = None;
        if let Some(first) = messages.first().filter(|first| first.role() == "system")
            && let Some(text) = first.content().map(str::to_owned)
        {
            messages.remove(0);
            self.system = Some(text);
        }
        self.turns = messages;
    }

    /// The prompt that asks for the next answer.
    pub(crate) fn tokens(&self, model: &Model) -> Outcome<Vec<u32>> {
        self.render(model.tokenizer(), &self.messages())
    }

    /// How many tokens of the prompt come before anything that was said: those of the instructions, and the template's
    /// own. Found as what the prompt has in common with that of another conversation.
    pub(crate) fn system_tokens(&self, model: &Model, tokens: &[u32]) -> Outcome<usize> {
        let mut other = self.messages();
        other.truncate(self.system.iter().len());
        // Begins unlike any text that is typed.
        other.push(Message::user("\u{2}"));
        let other = self.render(model.tokenizer(), &other)?;
        Ok(tokens.iter().zip(&other).take_while(|(a, b)| a == b).count())
    }

    fn render(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Outcome<Vec<u32>> {
        let prompt = self.template.render(&ChatInput::new(messages))?;
        Ok(prompt.encode(|text, parse_special| {
            tokenizer.encode(text, EncodeOptions { add_special: false, parse_special })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_saving_and_loading() {
        let template = || ChatTemplate::builtin("chatml").unwrap();
        let mut said = Conversation::new(template(), Some("Be brief.".into()));
        said.push(Message::user("Hi"));
        said.push(Message::assistant("Hello"));
        let mut loaded = Conversation::new(template(), Some("Something else.".into()));
        loaded.replace(said.messages());
        assert_eq!(loaded.messages(), said.messages());
        assert_eq!(loaded.system(), Some("Be brief."));
        loaded.clear();
        assert_eq!(loaded.messages(), [Message::system("Be brief.")]);
    }
}
