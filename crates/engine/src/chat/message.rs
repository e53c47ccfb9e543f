use std::fmt;

use serde_json::{Map, Value};

/// One message of a conversation: a JSON object as the OpenAI API has it, which is also what templates expect.
///
/// `role` is a text; `content` mostly is, or a list of parts such as `{"type": "text", "text": …}`; further keys
/// (`tool_calls`, `name`, `reasoning_content`, …) reach the template as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<Value>) -> Self {
        let fields =
            [("role".to_owned(), Value::String(role.into())), ("content".to_owned(), content.into())];
        Self(fields.into_iter().collect())
    }

    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<Value>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<Value>) -> Self {
        Self::new("user", content)
    }

    /// What the model answered.
    pub fn assistant(content: impl Into<Value>) -> Self {
        Self::new("assistant", content)
    }

    /// What a tool returned.
    pub fn tool(content: impl Into<Value>) -> Self {
        Self::new("tool", content)
    }

    /// Adds or replaces a field.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(field.into(), value.into());
        self
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What is said, if it is plain text.
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Value::as_str)
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The message as JSON.
    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}

impl TryFrom<Value> for Message {
    type Error = MessageError;

    /// Takes a JSON object with a text `role`.
    fn try_from(value: Value) -> Result<Self, MessageError> {
        let Value::Object(fields) = value else { return Err(MessageError::NotAnObject) };
        match fields.get("role") {
            Some(Value::String(_)) => Ok(Self(fields)),
            _ => Err(MessageError::NoRole),
        }
    }
}

/// Why JSON is not a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// It is not an object.
    NotAnObject,
    /// It has no `role`, or one that is not a text.
    NoRole,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "a message must be a JSON object",
            Self::NoRole => "a message must have a text `role`",
        })
    }
}

impl std::error::Error for MessageError {}
