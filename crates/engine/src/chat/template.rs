use serde_json::{Map, Value};

use super::jinja::{Budget, Compiled};
use super::{Message, RenderedPrompt, TemplateError, builtin, prompt};
use crate::gguf::Metadata;

/// A chat template: Jinja source and the names of the special tokens it refers to.
///
/// ```
/// use firecrest::chat::{ChatInput, ChatTemplate, Message};
///
/// let template = ChatTemplate::builtin("chatml").expect("a built-in name");
/// let messages = [Message::user("Why is the sky blue?")];
/// let prompt = template.render(&ChatInput::new(&messages))?;
/// assert_eq!(prompt.text(), "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), firecrest::chat::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    name: String,
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    control_tokens: Vec<String>,
}

/// What a template renders.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChatInput<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// Functions that the model may call, as JSON schemas.
    pub tools: Option<&'a [Value]>,
    /// Texts to answer from: objects with `title` and `text`.
    pub documents: Option<&'a [Value]>,
    /// Whether to end with the start of an answer. Default true.
    pub add_generation_prompt: bool,
    /// Further variables of the template, such as `enable_thinking`. They are trusted, and win over the others.
    pub variables: Map<String, Value>,
    /// The time that `strftime_now` tells, in seconds since 1970, UTC. Default now.
    pub now: i64,
}

impl<'a> ChatInput<'a> {
    /// A conversation to be answered.
    pub fn new(messages: &'a [Message]) -> Self {
        let now = web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH);
        Self {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: true,
            variables: Map::new(),
            now: now.map_or(0, |now| now.as_secs() as i64),
        }
    }

    /// Offers functions to the model.
    #[must_use]
    pub fn with_tools(mut self, tools: &'a [Value]) -> Self {
        self.tools = Some(tools);
        self
    }

    /// Adds texts to answer from.
    #[must_use]
    pub fn with_documents(mut self, documents: &'a [Value]) -> Self {
        self.documents = Some(documents);
        self
    }

    /// Sets whether to end with the start of an answer.
    #[must_use]
    pub fn with_generation_prompt(mut self, add_generation_prompt: bool) -> Self {
        self.add_generation_prompt = add_generation_prompt;
        self
    }

    /// Sets a variable of the template.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the time, in seconds since 1970, UTC.
    #[must_use]
    pub fn with_now(mut self, now: i64) -> Self {
        self.now = now;
        self
    }
}

impl ChatTemplate {
    /// A template from its Jinja source. Fails if that is not Jinja.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self, TemplateError> {
        let (name, source) = (name.into(), tolerate_generation(source.into()));
        Compiled::new(&name, &source).map_err(|error| TemplateError::new(&name, &error))?;
        Ok(Self { name, source, bos_token: None, eos_token: None, control_tokens: Vec::new() })
    }

    /// A template for files without one: `alpaca`, `chatml`, `gemma`, `llama2`, `llama3`, `mistral`, `phi3`, `vicuna`.
    pub fn builtin(name: &str) -> Option<Self> {
        let builtin = builtin::ALL.iter().find(|builtin| builtin.name == name)?;
        Some(Self {
            name: builtin.name.to_owned(),
            source: builtin.source.to_owned(),
            bos_token: builtin.bos_token.map(str::to_owned),
            eos_token: Some(builtin.eos_token.to_owned()),
            control_tokens: builtin.control_tokens.iter().map(|&token| token.to_owned()).collect(),
        })
    }

    /// The names that [`builtin`](Self::builtin) knows.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::ALL.iter().map(|builtin| builtin.name)
    }

    /// The template of a GGUF file, with the special tokens of its vocabulary; `None` if it has none.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, TemplateError> {
        Self::from_key(metadata, "tokenizer.chat_template")
    }

    /// One of the further templates of a GGUF file, such as `tool_use`; `None` if it has none of that name.
    pub fn named_from_metadata(metadata: &Metadata, name: &str) -> Result<Option<Self>, TemplateError> {
        Self::from_key(metadata, &format!("tokenizer.chat_template.{name}"))
    }

    /// Names of the further templates of a GGUF file.
    pub fn names_in_metadata(metadata: &Metadata) -> Result<Vec<String>, TemplateError> {
        let names = metadata.opt_strings("tokenizer.chat_templates")?;
        Ok(names.map(|names| names.iter().map(str::to_owned).collect()).unwrap_or_default())
    }

    fn from_key(metadata: &Metadata, key: &str) -> Result<Option<Self>, TemplateError> {
        let Some(source) = metadata.opt_str(key)? else { return Ok(None) };
        Ok(Some(Self::new(key, source)?.with_vocabulary(metadata)?))
    }

    /// Takes the special tokens from a file's vocabulary.
    pub fn with_vocabulary(mut self, metadata: &Metadata) -> Result<Self, TemplateError> {
        /// Types of tokens that are control codes, as `tokenizer.ggml.token_type` numbers them.
        const UNKNOWN: i32 = 2;
        const CONTROL: i32 = 3;
        let Some(tokens) = metadata.opt_strings("tokenizer.ggml.tokens")? else { return Ok(self) };
        let token = |key| -> Result<Option<String>, TemplateError> {
            let id = metadata.opt_usize(key)?;
            Ok(id.and_then(|id| tokens.get(id)).map(str::to_owned))
        };
        self.bos_token = token("tokenizer.ggml.bos_token_id")?;
        self.eos_token = token("tokenizer.ggml.eos_token_id")?;
        let types = metadata.opt_i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
        let controls =
            tokens.iter().zip(types.iter()).filter(|(_, kind)| matches!(**kind, UNKNOWN | CONTROL));
        self.control_tokens = controls.map(|(token, _)| token.to_owned()).collect();
        Ok(self)
    }

    /// Sets the text of the beginning-of-sequence and end-of-sequence tokens.
    #[must_use]
    pub fn with_bos_eos(mut self, bos_token: Option<String>, eos_token: Option<String>) -> Self {
        (self.bos_token, self.eos_token) = (bos_token, eos_token);
        self
    }

    /// Sets the texts that a tokenizer parses as control tokens, which messages must not spell.
    #[must_use]
    pub fn with_control_tokens(mut self, tokens: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.control_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// Name of the template: its metadata key, or its built-in name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. The error names the template and the line.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<RenderedPrompt, TemplateError> {
        let failed = |error| TemplateError::new(&self.name, &error);
        let compiled = Compiled::new(&self.name, &self.source).map_err(failed)?;
        let contents = [
            (
                "messages",
                Some(Value::Array(input.messages.iter().cloned().map(Message::into_json).collect())),
            ),
            ("tools", input.tools.map(|tools| Value::Array(tools.to_vec()))),
            ("documents", input.documents.map(|documents| Value::Array(documents.to_vec()))),
        ];
        let contents: Vec<(&str, Value)> =
            contents.into_iter().map(|(name, value)| (name, value.unwrap_or(Value::Null))).collect();
        let budget = budget(contents.iter().map(|(_, value)| value));
        let render = |contents: Vec<(&str, Value)>| {
            compiled.render(&self.variables(input, contents), input.now, budget)
        };
        let masked = contents.iter().map(|(name, value)| (*name, prompt::mask(value))).collect();
        let values: Vec<Value> = contents.iter().map(|(_, value)| value.clone()).collect();
        let text = render(contents).map_err(failed)?;
        // It may well fail: the template may have looked for something that the mask hides.
        let masked = render(masked).ok();
        Ok(RenderedPrompt::new(&text, masked.as_deref(), &self.control_tokens, &values))
    }

    fn variables(&self, input: &ChatInput<'_>, contents: Vec<(&str, Value)>) -> minijinja::Value {
        let mut variables = Map::new();
        variables.extend(contents.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables.insert("add_generation_prompt".to_owned(), input.add_generation_prompt.into());
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            if let Some(token) = token {
                variables.insert(name.to_owned(), token.as_str().into());
            }
        }
        variables.extend(input.variables.clone());
        minijinja::Value::from(minijinja::value::Serde(variables))
    }
}

/// What rendering `contents` may use: in proportion to their size, so that a long conversation renders and a hostile
/// template is stopped within a second.
fn budget<'v>(contents: impl Iterator<Item = &'v Value>) -> Budget {
    fn size(value: &Value) -> (u64, u64) {
        let all = |values: &mut dyn Iterator<Item = &Value>| {
            values.map(size).fold((1, 0), |(n, bytes), (m, more)| (n + m, bytes + more))
        };
        match value {
            Value::String(text) => (1, text.len() as u64),
            Value::Array(items) => all(&mut items.iter()),
            Value::Object(fields) => all(&mut fields.values()),
            _ => (1, 0),
        }
    }
    let (values, bytes) = contents.map(size).fold((0, 0), |(n, bytes), (m, more)| (n + m, bytes + more));
    Budget { fuel: 200_000 + 500 * values, bytes: (1 << 25) + 64 * bytes }
}

/// `source` with `{% generation %}` blocks, which mark what to train on, turned into blocks that do nothing.
fn tolerate_generation(source: String) -> String {
    if !source.contains("generation") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = &tag[2..tag.len() - 2];
        match inner.trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
