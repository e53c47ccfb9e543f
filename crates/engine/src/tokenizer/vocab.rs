//! The vocabulary: the text and kind of every token, and which tokens have a role.

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::TokenizerError;
use crate::gguf::{Metadata, MetadataError, StringArray};

/// `tokenizer.ggml.token_type`: how a token takes part in encoding and decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Normal,
    /// Stands for text that the vocabulary can't express.
    Unknown,
    /// Steers the model; no text has it unless special tokens are parsed.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Text that the model was not trained on.
    Unused,
    /// One byte, written `<0xHH>`.
    Byte,
}

impl Kind {
    fn from_gguf(number: i32) -> Kind {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }

    /// Whether plain text can turn into a token of this kind.
    fn is_text(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined | Kind::Unused)
    }
}

/// The tokens of a model.
pub(super) struct Vocabulary {
    texts: StringArray,
    kinds: Vec<Kind>,
    /// Ids by the hash of their text.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Vocabulary {
    pub(super) fn new(meta: &Metadata) -> Result<Vocabulary, TokenizerError> {
        let texts = meta.strings("tokenizer.ggml.tokens")?.clone();
        if texts.is_empty() || i32::try_from(texts.len()).is_err() {
            return Err(TokenizerError::VocabularySize { len: texts.len() });
        }
        let key = "tokenizer.ggml.token_type";
        let kinds: Vec<Kind> = match meta.opt_i32s(key)? {
            Some(numbers) => numbers.into_iter().map(Kind::from_gguf).collect(),
            None => vec![Kind::Normal; texts.len()],
        };
        check_len(key, kinds.len(), texts.len())?;

        let hasher = DefaultHashBuilder::default();
        let mut index = HashTable::with_capacity(texts.len());
        for (id, text) in texts.iter().enumerate() {
            // Converters fill holes in a vocabulary with empty tokens. They have an id and nothing else.
            if text.is_empty() {
                continue;
            }
            let text_of = |&id: &u32| texts.get(id as usize).unwrap_or_default();
            let hash = hasher.hash_one(text);
            if let Some(&first) = index.find(hash, |other| text_of(other) == text) {
                let text = text.to_owned();
                return Err(TokenizerError::DuplicateToken { text, first, second: id as u32 });
            }
            index.insert_unique(hash, id as u32, |other| hasher.hash_one(text_of(other)));
        }
        let mut vocab = Vocabulary { texts, kinds, index, hasher };
        let merges = meta.opt_strings("tokenizer.ggml.merges")?;
        for name in CONTROL_NAMES.iter().chain(&END_NAMES) {
            let Some(id) = vocab.id(name) else { continue };
            // Converters often take these for ordinary or user-defined tokens. Where merges lead to one, it is text:
            // </s> also ends an element of HTML.
            let leads_to_it =
                |merge: &str| merge.split_once(' ').is_some_and(|(l, r)| name.strip_prefix(l) == Some(r));
            let kind = &mut vocab.kinds[id as usize];
            if !(*kind == Kind::Normal && merges.is_some_and(|merges| merges.iter().any(leads_to_it))) {
                *kind = Kind::Control;
            }
        }
        Ok(vocab)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The entry as it stands in the file.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize)
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Ids, texts and kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> + Clone {
        self.texts.iter().zip(&self.kinds).zip(0..).map(|((text, &kind), id)| (id, text, kind))
    }

    /// The token whose entry is `text`.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.index.find(hash, |&id| self.text(id) == Some(text)).copied()
    }

    /// The token whose entry is `text`, where plain text may turn into it.
    pub(super) fn text_id(&self, text: &str) -> Option<u32> {
        self.id(text).filter(|&id| self.kind(id).is_some_and(Kind::is_text))
    }

    /// Tokens that plain text may turn into.
    pub(super) fn text_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.iter().filter(|(_, _, kind)| kind.is_text()).map(|(id, text, _)| (id, text))
    }

    /// The token `<0xHH>` of a byte.
    pub(super) fn byte_id(&self, byte: u8) -> Option<u32> {
        self.id(&format!("<0x{byte:02X}>")).filter(|&id| !self.is_control(id))
    }

    /// Whether a token steers the model and is not text.
    pub(super) fn is_control(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(Kind::Control | Kind::Unknown))
    }

    /// What a token adds to the text.
    pub(super) fn piece(&self, id: u32, spelling: Spelling) -> Option<Cow<'_, [u8]>> {
        let text = self.text(id)?;
        Some(match self.kind(id)? {
            Kind::Control | Kind::Unknown | Kind::UserDefined => Cow::Borrowed(text.as_bytes()),
            Kind::Byte => match parse_byte(text) {
                Some(byte) => Cow::Owned(vec![byte]),
                None => spelling.decode(text),
            },
            Kind::Normal | Kind::Unused => spelling.decode(text),
        })
    }
}

/// `<0xHH>` as a byte.
fn parse_byte(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}

pub(super) fn check_len(key: &'static str, len: usize, vocab: usize) -> Result<(), TokenizerError> {
    if len < vocab { Err(TokenizerError::TooShort { key, len, vocab }) } else { Ok(()) }
}

/// No token: an id beyond every vocabulary.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// How a vocabulary writes the bytes of ordinary text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As itself, with U+2581 for a space.
    Spaced,
    /// A letter for every byte: GPT-2's byte-level alphabet.
    ByteLevel,
}

/// What stands for a space in a vocabulary that is [`Spelling::Spaced`].
pub(super) const SPACE: &str = "\u{2581}";

impl Spelling {
    /// The bytes that an entry stands for.
    fn decode(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Spelling::Spaced if text.contains(SPACE) => Cow::Owned(text.replace(SPACE, " ").into_bytes()),
            Spelling::Spaced => Cow::Borrowed(text.as_bytes()),
            // An entry with other letters stands for itself, as in Hugging Face's decoder.
            Spelling::ByteLevel => match text.chars().map(byte_of).collect() {
                Some(bytes) => Cow::Owned(bytes),
                None => Cow::Borrowed(text.as_bytes()),
            },
        }
    }
}

/// The letter of a byte in the byte-level alphabet: printable Latin-1 stands for itself, the 68 others (controls,
/// spaces, soft hyphen) are moved in order to U+0100 and on.
pub(super) fn letter_of(byte: u8) -> char {
    let moved = match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => return char::from(byte),
        0..=0x20 => byte,
        0x7F..=0xA0 => byte - 0x7F + 0x21,
        0xAD => 0x43,
    };
    char::from_u32(0x100 + u32::from(moved)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte of a letter in the byte-level alphabet.
fn byte_of(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121) as u8 + 0x7F),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Tokens with a role.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) sep: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) mask: Option<u32>,
    /// Tokens that end generation, sorted.
    pub(super) ends: Vec<u32>,
}

impl Roles {
    /// Reads the ids of special tokens, on top of those that hold where the file is silent. As in llama.cpp, an id
    /// beyond the vocabulary counts as absent: many files pad with one.
    pub(super) fn read(meta: &Metadata, vocab: &Vocabulary, default: Roles) -> Result<Roles, MetadataError> {
        let read = |names: &[&str], default: Option<u32>| {
            for name in names {
                let id = match meta.opt_u32(&format!("tokenizer.ggml.{name}_token_id")) {
                    Err(MetadataError::Range { .. }) => None, // such as -1
                    other => other?,
                };
                if id.is_some_and(|id| (id as usize) < vocab.len()) {
                    return Ok(id);
                }
            }
            Ok::<_, MetadataError>(default.filter(|&id| (id as usize) < vocab.len()))
        };
        let mut roles = Roles {
            bos: read(&["bos", "cls"], default.bos)?,
            eos: read(&["eos"], default.eos)?,
            eot: read(&["eot"], default.eot)?,
            unk: read(&["unknown"], default.unk)?,
            sep: read(&["seperator"], default.sep)?, // sic
            pad: read(&["padding"], default.pad)?,
            mask: read(&["mask"], default.mask)?,
            ends: Vec::new(),
        };
        let eom = read(&["eom"], None)?;
        let has = |name: &str| vocab.id(name).is_some();
        // In the Harmony format <|end|> only closes a message, and other tokens end the turn.
        let harmony = (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>"));
        // Gemma 4 has </s> for the end of an element of HTML.
        let html = has("<|tool_response>");
        let ends = |name: &&&str| !(harmony && **name == "<|end|>" || html && **name == "</s>");
        let named = |name: &&str| vocab.id(name).filter(|&id| vocab.is_control(id));
        roles.eot = roles.eot.or_else(|| END_OF_TURN_NAMES.iter().filter(ends).find_map(named));
        roles.ends = END_NAMES.iter().filter(ends).filter_map(named).collect();
        roles.ends.extend([roles.eos, roles.eot, eom].into_iter().flatten());
        roles.ends.sort_unstable();
        roles.ends.dedup();
        Ok(roles)
    }

    /// Whether generation ends with this token.
    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }
}

/// Ends of a turn, in order of preference.
const END_OF_TURN_NAMES: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Tokens that end generation in the model families that have them, whatever the file says about them. The list is
/// that of llama.cpp.
const END_NAMES: [&str; 31] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Tokens that mark the parts of a fill-in-the-middle prompt: control tokens too, whatever the file says.
const CONTROL_NAMES: [&str; 24] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_level_alphabet_has_a_letter_for_every_byte() {
        let mut letters: Vec<char> = (0..=255).map(letter_of).collect();
        assert_eq!((letters[b' ' as usize], letters[b'\n' as usize]), ('Ġ', 'Ċ'));
        for (byte, &letter) in (0..=255).zip(&letters) {
            assert_eq!(byte_of(letter), Some(byte), "{letter:?}");
        }
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), 256);
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of(' '), None);
    }

    #[test]
    fn entries_decode_to_bytes() {
        assert_eq!(*Spelling::ByteLevel.decode("Ġhi"), *b" hi");
        assert_eq!(*Spelling::ByteLevel.decode("Ã©"), *"é".as_bytes());
        assert_eq!(*Spelling::ByteLevel.decode("中"), *"中".as_bytes(), "not in the alphabet");
        assert_eq!(*Spelling::Spaced.decode("▁a▁"), *b" a ");
        assert_eq!(parse_byte("<0x0A>"), Some(10));
        assert_eq!(parse_byte("<0x0A"), None);
        assert_eq!(parse_byte("<0x1FF>"), None);
    }
}
