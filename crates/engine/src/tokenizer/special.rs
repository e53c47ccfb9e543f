//! Finds special and user-defined tokens in text.

use super::trie::Trie;
use super::vocab::{Kind, Vocabulary};
use crate::gguf::{Metadata, MetadataError};

/// Tokens that are found in text before anything else, the longest first.
pub(super) struct SpecialTokens {
    /// Those that are text.
    user_defined: Finder,
    /// Those that steer the model too.
    all: Finder,
    /// Tokens that take the white space before them along.
    strips_left: Vec<u32>,
    /// Tokens that take the white space after them along, sorted.
    strips_right: Vec<u32>,
}

struct Finder {
    tokens: Trie,
    /// Bytes that a token begins with.
    first: [bool; 256],
}

impl Finder {
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a str, Kind)> + Clone) -> Finder {
        let mut first = [false; 256];
        for byte in tokens.clone().filter_map(|(_, text, _)| text.bytes().next()) {
            first[usize::from(byte)] = true;
        }
        Finder { tokens: Trie::new(tokens.map(|(id, text, _)| (text.as_bytes(), id))), first }
    }

    /// The leftmost longest token in `text`: where it begins and ends, and its id.
    fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        let starts = bytes.iter().enumerate().filter(|&(_, &byte)| self.first[usize::from(byte)]);
        starts
            .map(|(at, _)| at)
            .find_map(|at| self.tokens.longest_prefix(&bytes[at..]).map(|(len, id)| (at, at + len, id)))
    }
}

/// A part of a text.
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

impl SpecialTokens {
    pub(super) fn new(meta: &Metadata, vocab: &Vocabulary) -> Result<SpecialTokens, MetadataError> {
        let special = |&(_, _, kind): &(u32, &str, Kind)| {
            matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined)
        };
        let all = vocab.iter().filter(special);
        let mut tokens = SpecialTokens {
            user_defined: Finder::new(all.clone().filter(|&(_, _, kind)| kind == Kind::UserDefined)),
            all: Finder::new(all.clone()),
            strips_left: Vec::new(),
            strips_right: Vec::new(),
        };
        // GGUF files don't say which tokens strip, so the models are told by their names, as llama.cpp does.
        let name = meta.opt_str("general.name")?.unwrap_or_default().to_lowercase();
        let pre = meta.opt_str("tokenizer.ggml.pre")?.unwrap_or_default();
        let architecture = meta.opt_str("general.architecture")?.unwrap_or_default();
        if pre.starts_with("jina-v2-") || ["nomic-bert-moe", "jina-bert-v3"].contains(&architecture) {
            tokens.strips_left.extend(vocab.id("<mask>"));
        } else if name.contains("phi-3") || name.contains("phi3") {
            let stripping = all.filter(|(_, text, _)| !["<unk>", "<s>", "<|endoftext|>"].contains(text));
            tokens.strips_right.extend(stripping.map(|(id, _, _)| id));
        } else if name.contains("modern-bert") {
            tokens.strips_left.extend(vocab.id("[MASK]"));
        }
        Ok(tokens)
    }

    /// Calls `fragment` with the parts of `text` in order, none of them empty. Control tokens are found only if
    /// `parse_special`.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        mut fragment: impl FnMut(Fragment<'t>),
    ) {
        let finder = if parse_special { &self.all } else { &self.user_defined };
        let is_space = |letter: char| matches!(letter, ' ' | '\t'..='\r');
        let mut rest = text;
        while let Some((start, end, id)) = finder.find(rest) {
            let mut before = &rest[..start];
            if self.strips_left.contains(&id) {
                before = before.trim_end_matches(is_space);
            }
            if !before.is_empty() {
                fragment(Fragment::Text(before));
            }
            fragment(Fragment::Token(id));
            rest = &rest[end..];
            if self.strips_right.binary_search(&id).is_ok() {
                rest = rest.trim_start_matches(is_space);
            }
        }
        if !rest.is_empty() {
            fragment(Fragment::Text(rest));
        }
    }
}
