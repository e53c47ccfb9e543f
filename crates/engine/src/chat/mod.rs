//! Chat templates: from messages to the prompt that a model was trained on.
//!
//! A model's own [`ChatTemplate`] is Jinja source in its file's metadata; it is rendered as Hugging Face Transformers
//! renders it. Files without one can use a [built-in](ChatTemplate::builtin) template by name.
//!
//! # Whose text is it?
//!
//! A message may hold the text of a control token, such as `<|im_end|>`; encoded as that token it would end the message
//! and let its author speak as the system. A [`RenderedPrompt`] therefore keeps apart the text that may be parsed for
//! control tokens from the text that must not. See [`RenderedPrompt`] for how, and for the limits.

mod builtin;
mod error;
mod jinja;
mod message;
mod prompt;
mod template;

pub use error::TemplateError;
pub use message::{Message, MessageError};
pub use prompt::{Origin, RenderedPrompt, Segment};
pub use template::{ChatInput, ChatTemplate};

#[cfg(test)]
mod tests;
