//! SentencePiece's precompiled character map: replacements of character sequences, found by a double-array trie.

use super::TokenizerError;

/// Replaces the longest sequences that a model's table has. The default replaces nothing.
///
/// The format is that of `precompiled_charsmap` in SentencePiece's `normalizer_spec`: the size in bytes of a Darts double
/// array, the array's units (all little-endian `u32`), and the replacements, each ended by a zero byte.
#[derive(Default)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

/// No table has longer sequences; a damaged one could send the search around in circles.
const MAX_SEQUENCE: usize = 256;

impl Charsmap {
    pub(super) fn new(bytes: &[u8]) -> Result<Charsmap, TokenizerError> {
        if bytes.is_empty() {
            return Ok(Charsmap::default());
        }
        let error = || TokenizerError::Charsmap { len: bytes.len() };
        let (size, rest) = bytes.split_first_chunk().ok_or_else(error)?;
        let (units, replacements) =
            rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or_else(error)?;
        let (units, odd) = units.as_chunks();
        if !odd.is_empty() {
            return Err(error());
        }
        Ok(Charsmap {
            units: units.iter().map(|&unit| u32::from_le_bytes(unit)).collect(),
            replacements: String::from_utf8(replacements.to_vec()).map_err(|_| error())?,
        })
    }

    /// Calls `piece` with the parts of `text` in order, replaced where the table says so.
    pub(super) fn replace(&self, text: &str, piece: &mut dyn FnMut(&str)) {
        if self.units.is_empty() {
            return piece(text);
        }
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let (len, replaced) = match self.longest(rest) {
                Some((len, replacement)) => (len, replacement),
                None => (letter.len_utf8(), &rest[..letter.len_utf8()]),
            };
            piece(replaced);
            rest = &rest[len..];
        }
    }

    /// The longest sequence that `text` begins with: its length and replacement.
    fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut place = offset(*self.units.first()?);
        for (i, byte) in text.bytes().take(MAX_SEQUENCE).enumerate().take_while(|&(_, byte)| byte != 0) {
            place ^= u32::from(byte);
            let Some(&unit) = self.units.get(place as usize) else { break };
            if label(unit) != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            if has_value(unit) && text.is_char_boundary(i + 1) {
                let value = self.units.get(place as usize).map(|&unit| value(unit));
                found = value.and_then(|start| self.replacements.get(start..)).map(|from| {
                    let end = from.find('\0').unwrap_or(from.len());
                    (i + 1, &from[..end])
                });
            }
        }
        found
    }
}

// The fields of a unit of the double array.

/// Where the children are, relative to the unit by exclusive or.
fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

/// The byte that leads to the unit; the top bit sets values apart.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xFF)
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn value(unit: u32) -> usize {
    (unit & !(1 << 31)) as usize
}
