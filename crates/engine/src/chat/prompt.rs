use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use serde_json::Value;

/// Who wrote a part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The template, or a message in words that no tokenizer takes for a control token: safe to parse for control tokens.
    Template,
    /// A message, in words that spell a control token: to be encoded as plain text.
    Content,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Who wrote it.
    pub origin: Origin,
    /// The text, not empty.
    pub text: String,
}

/// A rendered conversation, cut so that messages cannot smuggle in control tokens.
///
/// Encode each [segment](Self::segments) by itself, parsing control tokens only where its origin is
/// [`Origin::Template`], and add no beginning-of-sequence token: templates write it themselves. An honest conversation is
/// one segment, so its tokens are exactly those of the whole text; the cuts lie only round the control tokens that a
/// message spells.
///
/// # How, and how far
///
/// The template is rendered twice: as it is, which gives the text, and with every character of the messages (but white
/// space, quotes and backslashes, which templates trim, split at and escape) replaced by a private-use character of its
/// own. If putting them back gives the same text, as with a template that copies, trims or joins its messages, the
/// second rendering tells for every character who wrote it, and a control token is [`Origin::Content`] if any of its
/// characters came from a message.
///
/// If it does not, the template looked into its messages or changed them: `'</think>' in content`, `content | upper`.
/// Then the two renderings are compared as sequences of control tokens. If they are equal, the messages added none. If
/// not, every control token that is more frequent in the text than the template alone makes it is
/// [`Origin::Content`] wherever it occurs: the prompt may be worse, but it is not taken over.
///
/// The limits: roles, types, and the variables of [`ChatInput`](super::ChatInput) are trusted. What counts as a control
/// token is what the [template was told](super::ChatTemplate::with_control_tokens). And a template that writes one control
/// token less for each that a message spells would escape the comparison of a template that changes its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPrompt {
    segments: Vec<Segment>,
}

impl RenderedPrompt {
    /// The parts, in order. No two of origin [`Origin::Template`] are adjacent.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The whole text.
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }

    /// Encodes the segments with `encode(text, parse_special)` and joins the tokens.
    pub fn encode(&self, mut encode: impl FnMut(&str, bool) -> Vec<u32>) -> Vec<u32> {
        self.segments
            .iter()
            .flat_map(|segment| encode(&segment.text, segment.origin == Origin::Template))
            .collect()
    }

    /// Cuts `text`, given its rendering with masked messages, if that did not fail.
    pub(super) fn new(text: &str, masked: Option<&str>, controls: &[String], messages: &[Value]) -> Self {
        let found = occurrences(text, controls);
        let foreign = match masked {
            Some(masked) if unmask(masked) == text => written_by_messages(text, masked, &found),
            _ => {
                let alone = masked.map(|masked| occurrences(masked, controls));
                added_by_messages(text, &found, masked, alone.as_deref(), messages)
            }
        };
        let mut segments: Vec<Segment> = Vec::new();
        let mut push = |origin, text: &str| {
            if !text.is_empty() {
                segments.push(Segment { origin, text: text.to_owned() });
            }
        };
        let mut end = 0;
        for range in foreign {
            push(Origin::Template, &text[end..range.start]);
            push(Origin::Content, &text[range.clone()]);
            end = range.end;
        }
        push(Origin::Template, &text[end..]);
        Self { segments }
    }
}

/// The control tokens in `text`: the longest at each place, left to right, as tokenizers cut them.
fn occurrences(text: &str, controls: &[String]) -> Vec<Range<usize>> {
    let tokens: HashSet<&[u8]> = controls.iter().map(String::as_bytes).collect();
    let mut lengths: HashMap<u8, BTreeSet<usize>> = HashMap::new();
    for token in &tokens {
        if let Some(&first) = token.first() {
            lengths.entry(first).or_default().insert(token.len());
        }
    }
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = bytes.get(at) {
        let mut lengths = lengths.get(first).into_iter().flatten().rev();
        match lengths.find(|&&len| bytes.get(at..at + len).is_some_and(|text| tokens.contains(text))) {
            Some(len) => {
                found.push(at..at + len);
                at += len;
            }
            None => at += 1,
        }
    }
    found
}

/// The occurrences that hold a character which is masked in the other rendering of the same text.
fn written_by_messages(text: &str, masked: &str, found: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut chars = text.char_indices().zip(masked.chars()).peekable();
    let mut foreign = Vec::new();
    for range in found {
        while chars.next_if(|((at, _), _)| *at < range.start).is_some() {}
        let mut masked = false;
        while let Some(((_, plain), other)) = chars.next_if(|((at, _), _)| *at < range.end) {
            masked |= plain != other;
        }
        if masked {
            foreign.push(range.clone());
        }
    }
    foreign
}

/// The occurrences that cannot be told from those that messages added.
fn added_by_messages(
    text: &str,
    found: &[Range<usize>],
    masked: Option<&str>,
    alone: Option<&[Range<usize>]>,
    messages: &[Value],
) -> Vec<Range<usize>> {
    let spelled = |range: &Range<usize>| &text[range.clone()];
    let suspects: Vec<&str> = match (masked, alone) {
        (Some(masked), Some(alone)) => {
            let alone: Vec<&str> = alone.iter().map(|range| &masked[range.clone()]).collect();
            if found.iter().map(spelled).eq(alone.iter().copied()) {
                return Vec::new();
            }
            let mut surplus: HashMap<&str, isize> = HashMap::new();
            found.iter().for_each(|range| *surplus.entry(spelled(range)).or_default() += 1);
            alone.iter().for_each(|token| *surplus.entry(token).or_default() -= 1);
            surplus.into_iter().filter(|(_, surplus)| *surplus > 0).map(|(token, _)| token).collect()
        }
        // The template fails on masked messages, so it cannot be asked what it writes alone. A token that a message could
        // spell, in whole or with the help of what surrounds it, is suspect.
        _ => {
            found.iter().map(spelled).filter(|token| messages.iter().any(|m| could_spell(m, token))).collect()
        }
    };
    found.iter().filter(|range| suspects.contains(&spelled(range))).cloned().collect()
}

/// Whether a text in `value` shares a character with `token` that is neither white space nor alphanumeric.
fn could_spell(value: &Value, token: &str) -> bool {
    match value {
        Value::String(text) => text.chars().any(|c| {
            token.contains(c) && !c.is_whitespace() && (!c.is_alphanumeric() || text.contains(token))
        }),
        Value::Array(items) => items.iter().any(|item| could_spell(item, token)),
        Value::Object(fields) => fields.values().any(|field| could_spell(field, token)),
        _ => false,
    }
}

/// Start of the plane of private-use characters that stand for those of the basic plane.
const MASK: u32 = 0xF_0000;

/// `value` with every text masked but those that templates compare: roles and types.
pub(super) fn mask(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.chars().map(mask_char).collect()),
        Value::Array(items) => Value::Array(items.iter().map(mask).collect()),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                // A schema may list several types.
                let trusted = matches!(key.as_str(), "role" | "type") && !value.is_object();
                (key.clone(), if trusted { value.clone() } else { mask(value) })
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

fn mask_char(c: char) -> char {
    // Controls and white space are trimmed and split at, quotes and backslashes are escaped in JSON.
    if c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\') {
        return c;
    }
    match u32::from(c) {
        code @ ..0xFFFE => char::from_u32(MASK + code).unwrap_or(c),
        _ => c,
    }
}

fn unmask(text: &str) -> String {
    let unmask = |c: char| {
        u32::from(c).checked_sub(MASK).filter(|&code| code < 0xFFFE).and_then(char::from_u32).unwrap_or(c)
    };
    text.chars().map(unmask).collect()
}
