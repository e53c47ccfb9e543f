//! Where embeddings go: JSON lines, `.npy` or Parquet.

use std::io::{self, Write};

use firecrest::embed::Embedding;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::parquet;
use crate::failure::Outcome;
use crate::output;

/// What a file of embeddings looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputFormat {
    /// An object a line.
    Jsonl,
    /// An array of floats, `[texts, dimension]`, for NumPy.
    Npy,
    /// A table with a column of lists.
    Parquet,
}

impl OutputFormat {
    /// By the end of a file's name.
    pub(super) fn of(path: &std::path::Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("npy") => Self::Npy,
            Some(extension) if extension.eq_ignore_ascii_case("parquet") => Self::Parquet,
            _ => Self::Jsonl,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Npy => "npy",
            Self::Parquet => "parquet",
        }
    }

    /// Of a file under way whose rows are of one length: bytes before them, and of each.
    pub(super) fn fixed(self, columns: usize) -> Option<(u64, u64)> {
        match self {
            Self::Jsonl => None,
            Self::Npy => Some((NPY_HEADER_BYTES, 4 * columns as u64)),
            Self::Parquet => Some((0, parquet::row_bytes(columns) as u64)),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    embedding: Vectors<'a>,
    tokens: usize,
    truncated: bool,
}

/// One vector, or the vectors of all tokens as a list of lists.
struct Vectors<'a> {
    values: &'a [f32],
    /// Where there is a vector for each token, how long each is.
    each: Option<usize>,
}

impl Serialize for Vectors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.each {
            None => self.values.serialize(serializer),
            Some(dimension) => {
                let mut list = serializer.serialize_seq(Some(self.values.len() / dimension))?;
                for vector in self.values.chunks_exact(dimension) {
                    list.serialize_element(vector)?;
                }
                list.end()
            }
        }
    }
}

/// Writes one embedding as a line. `each`: the length of a token's vector, where there is one for each token.
pub(super) fn json_line(
    out: &mut impl Write,
    index: u64,
    embedding: &Embedding,
    each: Option<usize>,
) -> Outcome {
    output::json_line(
        out,
        &Line {
            index,
            embedding: Vectors { values: &embedding.values, each },
            tokens: embedding.tokens,
            truncated: embedding.truncated,
        },
    )
}

/// Writes one embedding as a row of an array.
pub(super) fn npy_row(out: &mut impl Write, embedding: &Embedding) -> io::Result<()> {
    let bytes: Vec<u8> = embedding.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    out.write_all(&bytes)
}

/// Bytes of the header of a `.npy` file.
pub(super) const NPY_HEADER_BYTES: u64 = 128;

/// The header of a `.npy` file (version 1.0) of `rows` × `columns` floats.
pub(super) fn npy_header(rows: u64, columns: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    header.extend(text.as_bytes());
    header.resize(NPY_HEADER_BYTES as usize - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_whole_lines_of_one_length() {
        for (rows, columns) in [(0, 1), (u64::MAX, usize::MAX)] {
            let header = npy_header(rows, columns);
            assert_eq!(header.len() as u64, NPY_HEADER_BYTES);
            assert_eq!(header.last(), Some(&b'\n'));
            assert_eq!(u16::from_le_bytes([header[8], header[9]]) as u64, NPY_HEADER_BYTES - 10);
        }
    }
}
