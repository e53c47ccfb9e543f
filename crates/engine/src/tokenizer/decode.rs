//! From tokens back to text.

use super::Tokenizer;

/// Turns tokens to text one by one, in pieces that are never half a character.
///
/// All pieces together, with that of [`finish`](Decoder::finish), equal
/// [`decode_lossy`](Tokenizer::decode_lossy) of all tokens.
#[derive(Clone)]
pub struct Decoder<'t> {
    tokenizer: &'t Tokenizer,
    /// Whether a space before the next token is not part of the text.
    strips_space: bool,
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl<'t> Decoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Decoder<'t> {
        Decoder { tokenizer, strips_space: tokenizer.add_space_prefix, pending: Vec::new() }
    }

    /// The text that is complete once `id` is added: often a word, and nothing where a character goes on in the next
    /// token or where `id` is not in the vocabulary. Bytes that can't become UTF-8 turn to U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        let piece = self.tokenizer.token_bytes(id).unwrap_or_default();
        let piece = strip_space(&piece, std::mem::take(&mut self.strips_space));
        self.pending.extend_from_slice(piece);
        let complete = complete_len(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// What is left at the end: U+FFFD if the last character was not complete, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// How many bytes stay the same text whatever follows them.
fn complete_len(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let tail = last.map_or(&[][..], |chunk| chunk.invalid());
    // An invalid tail that more bytes could complete is told by the error having no length.
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => bytes.len() - tail.len(),
        _ => bytes.len(),
    }
}

/// `piece` without one space before it, if `strips`.
pub(super) fn strip_space(piece: &[u8], strips: bool) -> &[u8] {
    piece.strip_prefix(b" ").filter(|_| strips).unwrap_or(piece)
}

/// Removes the spaces that come of decoding words and punctuation one by one: those before `?`, `!`, `.` and `,`, those
/// around a lone apostrophe, and those before `'s`, `'m`, `'re` and `'ve`. The steps are those of llama.cpp, which has
/// them from Hugging Face's `clean_up_tokenization`.
pub(super) fn clean_up(text: &[u8]) -> Vec<u8> {
    let mut unspaced = Vec::with_capacity(text.len());
    for (i, &byte) in text.iter().enumerate() {
        if !(byte == b' ' && matches!(text.get(i + 1), Some(b'?' | b'!' | b'.' | b','))) {
            unspaced.push(byte);
        }
    }
    let mut joined = Vec::with_capacity(unspaced.len());
    let mut rest = &unspaced[..];
    while let Some((&byte, after)) = rest.split_first() {
        let lone = rest.starts_with(b" ' ");
        joined.push(if lone { b'\'' } else { byte });
        rest = if lone { &rest[3..] } else { after };
    }
    let mut cleaned = Vec::with_capacity(joined.len());
    for (i, &byte) in joined.iter().enumerate() {
        let ends = [&b" 's"[..], b" 'm", b" 're", b" 've"];
        if !ends.iter().any(|end| joined[i..].starts_with(end)) {
            cleaned.push(byte);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_characters_wait() {
        let euro = "€".as_bytes();
        assert_eq!(complete_len(b"ab"), 2);
        assert_eq!(complete_len(&euro[..1]), 0);
        assert_eq!(complete_len(&[b'a', euro[0], euro[1]]), 1);
        assert_eq!(complete_len(&[euro[0], b'a']), 2, "a broken character is complete");
        assert_eq!(complete_len(&[0xFF]), 1);
        assert_eq!(complete_len(&[0xFF, 0xF0, 0x9F]), 1);
        assert_eq!(complete_len(&[0xE2, 0x28, 0xE2]), 2);
    }

    #[test]
    fn spaces_are_cleaned_up() {
        let clean = |text: &str| String::from_utf8(clean_up(text.as_bytes())).unwrap();
        assert_eq!(clean("a , b . c ! d ?"), "a, b. c! d?");
        assert_eq!(clean("rock ' n ' roll"), "rock'n'roll");
        assert_eq!(
            clean("I 'm he 's we 've they 're don 't you 'll"),
            "I'm he's we've they're don 't you 'll"
        );
        assert_eq!(clean(" . "), ". ");
        assert_eq!(clean("a  ."), "a .");
        assert_eq!(clean(""), "");
    }
}
