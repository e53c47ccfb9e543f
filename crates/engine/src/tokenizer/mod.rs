//! Text to tokens and back, as a GGUF file's metadata defines it.
//!
//! Four kinds of tokenizer (`tokenizer.ggml.model`): SentencePiece's byte-pair encoding (`llama`), byte-pair encoding
//! with merges (`gpt2`, `gemma4`), WordPiece (`bert`) and Unigram (`t5`). Ids are those of llama.cpp, except that
//! WordPiece follows Hugging Face's tokenizers.
//!
//! ```
//! use firecrest::gguf::{Array, Metadata, Value};
//! use firecrest::tokenizer::{EncodeOptions, Tokenizer};
//!
//! // As a rule the metadata is that of a model: `Gguf::open(path)?.metadata()`.
//! let tokens = ["<unk>", "<s>", "</s>", "▁", "▁h", "▁hi", "h", "i"];
//! let mut meta = Metadata::new();
//! meta.insert("tokenizer.ggml.model", "llama");
//! meta.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens.into_iter().collect())));
//! meta.insert("tokenizer.ggml.token_type", vec![2, 3, 3, 1, 1, 1, 1, 1]);
//! let tokenizer = Tokenizer::from_metadata(&meta)?;
//!
//! let options = EncodeOptions { add_special: true, parse_special: false };
//! assert_eq!(tokenizer.encode("hi hi", options), [1, 5, 5]);
//! assert_eq!(tokenizer.decode_lossy(&[5, 5]), "hi hi");
//! # Ok::<_, firecrest::tokenizer::TokenizerError>(())
//! ```

mod bpe;
mod charsmap;
mod decode;
mod error;
mod merge;
mod pretokenize;
mod pretokenizers;
mod special;
mod spm;
mod trie;
mod unigram;
mod vocab;
mod wordpiece;

use std::borrow::Cow;
use std::fmt;

pub use decode::Decoder;
pub use error::TokenizerError;

use crate::gguf::{Array, Metadata, MetadataError, Value};
use bpe::Bpe;
use charsmap::Charsmap;
use pretokenizers::Rules;
use special::{Fragment, SpecialTokens};
use spm::SentencePiece;
use unigram::Unigram;
use vocab::{Roles, Spelling, Vocabulary};
use wordpiece::WordPiece;

/// Turns text to token ids and back. It doesn't change, and threads can share it.
pub struct Tokenizer {
    vocab: Vocabulary,
    algorithm: Algorithm,
    special_tokens: SpecialTokens,
    roles: Roles,
    spelling: Spelling,
    /// What `add_special` puts before and after the text.
    before: Option<u32>,
    after: Option<u32>,
    /// Whether text gets a space before it that decoding takes away again.
    add_space_prefix: bool,
    clean_up: bool,
}

enum Algorithm {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
    WordPiece(WordPiece),
    Unigram(Unigram),
}

/// What [`Tokenizer::encode`] does with special tokens. The default is neither: right for text from users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncodeOptions {
    /// Adds the tokens that the model expects at the beginning and end of its input, if it expects any.
    pub add_special: bool,
    /// Finds control tokens such as `<|im_end|>` in the text. Otherwise they are text like any other; only user-defined
    /// tokens, which are text to the model, are found.
    pub parse_special: bool,
}

/// Longer text is encoded part by part, as places in a part are counted with 32 bits.
const MAX_PART_BYTES: usize = 1 << 30;

/// The kinds of tokenizer, by `tokenizer.ggml.model`.
enum Model {
    SentencePiece,
    Bpe(Rules),
    WordPiece,
    Unigram,
}

impl Model {
    fn read(meta: &Metadata) -> Result<Model, TokenizerError> {
        let name = match meta.str("tokenizer.ggml.model")? {
            "llama" => return Ok(Model::SentencePiece),
            "bert" => return Ok(Model::WordPiece),
            "t5" => return Ok(Model::Unigram),
            "gpt2" => meta.opt_str("tokenizer.ggml.pre")?.unwrap_or("default"),
            name @ "gemma4" => name,
            name => return Err(TokenizerError::UnknownModel { name: name.to_owned() }),
        };
        let rules = pretokenizers::rules(name);
        rules.map(Model::Bpe).ok_or_else(|| TokenizerError::UnknownPreTokenizer { name: name.to_owned() })
    }

    /// Ids of special tokens where the file is silent: those of the first model of each kind.
    fn roles(&self) -> Roles {
        match self {
            Model::SentencePiece => Roles { bos: Some(1), eos: Some(2), unk: Some(0), ..Roles::default() },
            Model::Bpe(rules) if rules.spelling == Spelling::ByteLevel => {
                Roles { bos: Some(11), eos: Some(11), ..Roles::default() }
            }
            Model::Bpe(_) => Roles::default(),
            Model::WordPiece => Roles {
                bos: Some(101),
                unk: Some(100),
                sep: Some(102),
                pad: Some(0),
                mask: Some(103),
                ..Roles::default()
            },
            Model::Unigram => Roles { eos: Some(1), unk: Some(2), pad: Some(0), ..Roles::default() },
        }
    }
}

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys.
    ///
    /// # Errors
    ///
    /// Keys that are missing, of the wrong type or at odds with each other, and names of tokenizers and pre-tokenizers
    /// that are not known.
    pub fn from_metadata(meta: &Metadata) -> Result<Tokenizer, TokenizerError> {
        let model = Model::read(meta)?;
        let vocab = Vocabulary::new(meta)?;
        let roles = Roles::read(meta, &vocab, model.roles())?;
        let flag = |name: &str, default| {
            Ok::<bool, MetadataError>(meta.opt_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
        };

        let (spelling, clean_up, add_bos, add_eos) = match &model {
            Model::SentencePiece => (Spelling::Spaced, false, true, false),
            Model::Bpe(rules) => (rules.spelling, rules.clean_up, rules.add_bos, false),
            Model::WordPiece => (Spelling::Spaced, true, true, false),
            Model::Unigram => (Spelling::Spaced, false, false, true),
        };
        let add = |name, default, id: Option<u32>, flag_key, id_key| match flag(name, default)? {
            true if id.is_none() => Err(TokenizerError::NoSpecialToken { flag: flag_key, id: id_key }),
            true => Ok(id),
            false => Ok(None),
        };
        let before = add(
            "add_bos_token",
            add_bos,
            roles.bos,
            "tokenizer.ggml.add_bos_token",
            "tokenizer.ggml.bos_token_id",
        )?;
        let after = match model {
            Model::WordPiece => add(
                "add_sep_token",
                true,
                roles.sep,
                "tokenizer.ggml.add_sep_token",
                "tokenizer.ggml.seperator_token_id",
            )?,
            _ => add(
                "add_eos_token",
                add_eos,
                roles.eos,
                "tokenizer.ggml.add_eos_token",
                "tokenizer.ggml.eos_token_id",
            )?,
        };
        let add_space_prefix = match model {
            Model::SentencePiece => flag("add_space_prefix", true)?,
            Model::Unigram => flag("add_space_prefix", false)?,
            Model::Bpe(_) | Model::WordPiece => false,
        };

        let algorithm = match model {
            Model::SentencePiece => {
                Algorithm::SentencePiece(SentencePiece::new(&vocab, &scores(meta, &vocab)?, roles.unk))
            }
            Model::Bpe(rules) => Algorithm::Bpe(Bpe::new(meta, &vocab, rules)?),
            Model::WordPiece => {
                let lowercase = flag("normalizer.lowercase", true)?;
                let strip_accents = flag("normalizer.strip_accents", lowercase)?;
                Algorithm::WordPiece(WordPiece::new(&vocab, roles.unk, lowercase, strip_accents))
            }
            Model::Unigram => Algorithm::Unigram(Unigram::new(
                &vocab,
                scores(meta, &vocab)?,
                roles.unk,
                Charsmap::new(&charsmap_bytes(meta)?)?,
                add_space_prefix,
                flag("remove_extra_whitespaces", false)?,
            )),
        };
        let special_tokens = SpecialTokens::new(meta, &vocab)?;
        Ok(Tokenizer {
            vocab,
            algorithm,
            special_tokens,
            roles,
            spelling,
            before,
            after,
            add_space_prefix,
            clean_up,
        })
    }

    /// The tokens of `text`.
    ///
    /// A part of the text that the vocabulary can't express becomes the unknown token, or nothing in a byte-level
    /// vocabulary that lacks a byte.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        ids.extend(self.before.filter(|_| options.add_special));
        let mut after_token = true;
        self.special_tokens.split(text, options.parse_special, |fragment| match fragment {
            Fragment::Token(id) => {
                ids.push(id);
                after_token = true;
            }
            Fragment::Text(text) => {
                self.encode_text(text, std::mem::take(&mut after_token), &mut ids);
            }
        });
        ids.extend(self.after.filter(|_| options.add_special));
        ids
    }

    fn encode_text(&self, mut text: &str, mut after_token: bool, ids: &mut Vec<u32>) {
        while !text.is_empty() {
            let mut end = text.len().min(MAX_PART_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let (part, rest) = text.split_at(end);
            let after_token = std::mem::take(&mut after_token);
            match &self.algorithm {
                Algorithm::Bpe(bpe) => bpe.encode(&self.vocab, part, ids),
                Algorithm::SentencePiece(spm) => {
                    let prefix = if after_token && self.add_space_prefix { " " } else { "" };
                    spm.encode(&self.vocab, prefix, part, ids);
                }
                Algorithm::WordPiece(wordpiece) => wordpiece.encode(part, ids),
                Algorithm::Unigram(unigram) => unigram.encode(part, ids),
            }
            text = rest;
        }
    }

    /// The bytes of the text that `ids` stand for. Special tokens are rendered as they are written in the vocabulary,
    /// and ids beyond it left out. The bytes need not be UTF-8.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut strips_space = self.add_space_prefix;
        for &id in ids {
            let piece = self.token_bytes(id).unwrap_or_default();
            bytes.extend_from_slice(decode::strip_space(&piece, std::mem::take(&mut strips_space)));
        }
        bytes
    }

    /// [`decode`](Self::decode) as text, with U+FFFD for what is not UTF-8.
    pub fn decode_lossy(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode(ids)).into_owned()
    }

    /// [`decode`](Self::decode) with the spaces before punctuation removed where the vocabulary has that convention, as
    /// llama.cpp's `llama_detokenize` gives it. WordPiece needs it for readable text. With byte-level vocabularies the
    /// text is no longer the one that was encoded (`a && !b` becomes `a &&!b`).
    pub fn decode_cleaned(&self, ids: &[u32]) -> Vec<u8> {
        let bytes = self.decode(ids);
        if self.clean_up { decode::clean_up(&bytes) } else { bytes }
    }

    /// Decodes tokens as they are generated.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self)
    }

    /// The bytes that a token adds to the text; `None` beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        self.vocab.piece(id, self.spelling)
    }

    /// A token as the vocabulary has it, for instance `Ġthe`, `▁the` or `<0x0A>`.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocab.text(id)
    }

    /// The token that the vocabulary has as exactly `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.id(text)
    }

    /// How many tokens there are; ids are smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// Whether a token steers the model and is not text: control tokens and the unknown token. They come of encoding
    /// text only with [`parse_special`](EncodeOptions::parse_special).
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.is_control(id)
    }

    /// Whether a model that generates this token is done: the ends of sequence, turn and message that the file names,
    /// and tokens known by their text to end generation in some family of models, such as `<|im_end|>`.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.roles.is_end(id)
    }

    /// Whether [`add_special`](EncodeOptions::add_special) puts a token before the text: BOS, or CLS for WordPiece.
    pub fn add_bos(&self) -> bool {
        self.before.is_some()
    }

    /// Whether [`add_special`](EncodeOptions::add_special) puts a token after the text: EOS, or SEP for WordPiece.
    pub fn add_eos(&self) -> bool {
        self.after.is_some()
    }

    /// The beginning of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The end of a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The end of a turn in a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// What stands for text that the vocabulary can't express.
    pub fn unk(&self) -> Option<u32> {
        self.roles.unk
    }

    /// What stands between or after sequences, in BERT-like models.
    pub fn sep(&self) -> Option<u32> {
        self.roles.sep
    }

    /// What stands for a whole sequence, at its beginning, in BERT-like models: the same token as [`bos`](Self::bos).
    pub fn cls(&self) -> Option<u32> {
        self.roles.bos.filter(|_| matches!(self.algorithm, Algorithm::WordPiece(_)))
    }

    /// What fills up sequences of unequal length.
    pub fn pad(&self) -> Option<u32> {
        self.roles.pad
    }

    /// What stands for a hidden word in BERT-like models.
    pub fn mask(&self) -> Option<u32> {
        self.roles.mask
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// The name in `tokenizer.ggml.pre` of the pre-tokenizer that splits by these expressions, if one does.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn pre_tokenizer_name(
    expressions: &[String],
    whole_words: bool,
    clean_up: bool,
) -> Option<&'static str> {
    pretokenizers::name(expressions, whole_words, clean_up)
}

/// One score a token; all equal where the file has none.
fn scores(meta: &Metadata, vocab: &Vocabulary) -> Result<Vec<f32>, TokenizerError> {
    let key = "tokenizer.ggml.scores";
    let scores = match meta.opt_f32s(key) {
        // Some converters write whole numbers.
        Err(MetadataError::Type { .. }) => meta.i32s(key)?.into_iter().map(|score| score as f32).collect(),
        scores => scores?.unwrap_or_else(|| vec![0.0; vocab.len()]),
    };
    vocab::check_len(key, scores.len(), vocab.len())?;
    Ok(scores)
}

/// The character map, which is an array of `u8` or `i8`.
fn charsmap_bytes(meta: &Metadata) -> Result<Vec<u8>, MetadataError> {
    let key = "tokenizer.ggml.precompiled_charsmap";
    Ok(match meta.get(key) {
        None => Vec::new(),
        Some(Value::Array(Array::U8(bytes))) => bytes.clone(),
        Some(Value::Array(Array::I8(bytes))) => bytes.iter().map(|&byte| byte as u8).collect(),
        Some(other) => {
            let found = other.type_name();
            return Err(MetadataError::Type { key: key.to_owned(), expected: "[u8]", found });
        }
    })
}
