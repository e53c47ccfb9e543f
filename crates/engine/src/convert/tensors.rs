//! Tensors: their names, what changes in them, and their formats.

use std::io;

use super::checkpoint::{Checkpoint, Tensor};
use super::config::Config;
use super::families::{Change, Family};
use super::{ConvertError, families, hyperparameters};
use crate::gguf::{Format, Writer};
use crate::weights::Bytes;

/// Adds every tensor of a checkpoint to a file; returns how many.
pub(super) fn add(
    checkpoint: &Checkpoint,
    config: &Config,
    family: &Family,
    format: Format,
    writer: &mut Writer,
) -> Result<usize, ConvertError> {
    let mut added = 0;
    let tied = config.flag("tie_word_embeddings");
    let scores = checkpoint.has_classifier();
    for (name, tensor) in checkpoint.iter() {
        let Some((target, change)) = families::target(family, name, scores)? else { continue };
        if tied && target.starts_with("output.") && checkpoint.get("lm_head.weight").is_some() {
            continue;
        }
        let change = change.resolve(config)?;
        if !change.fits(&tensor.shape) {
            return Err(unfit(name, tensor));
        }
        let shape = change.shape(&tensor.shape);
        let mut shape: Vec<usize> = shape.into_iter().rev().filter(|&size| size != 0).collect();
        if shape.len() > 2 {
            // Convolutions of one channel have a dimension that means nothing.
            shape.retain(|&size| size != 1);
        }
        let format = choose(&target, &shape, format);
        let (tensor, label) = (tensor.clone(), target.clone());
        if change == Resolved::None && tensor.format == format {
            writer.tensor(target, format, &shape, tensor.data)?;
        } else {
            let columns = shape.first().copied().unwrap_or(1);
            writer.tensor_from(target, format, &shape, move || {
                pack(&label, &tensor, change, format, columns)
            })?;
        }
        added += 1;
    }
    if let Some(factors) = hyperparameters::rope_factors(config)? {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        writer.tensor("rope_freqs.weight", Format::F32, &[factors.len()], bytes)?;
        added += 1;
    }
    Ok(added)
}

fn unfit(name: &str, tensor: &Tensor) -> ConvertError {
    ConvertError::Tensor {
        tensor: name.into(),
        dtype: tensor.format.name().into(),
        shape: tensor.shape.clone(),
    }
}

/// The format of a tensor; `shape` has its fastest dimension first.
fn choose(name: &str, shape: &[usize], format: Format) -> Format {
    let looked_up = ["position_embd.", "token_types."].iter().any(|table| name.starts_with(table));
    if shape.len() < 2 || name.contains("_norm.") || name.contains(".shortconv.conv.") || looked_up {
        Format::F32
    } else if format.row_bytes(shape[0]).is_none() {
        Format::F16
    } else {
        format
    }
}

/// A change with what it needs of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Resolved {
    None,
    /// Every value plus one.
    AddOne,
    /// Rows and columns exchanged.
    Transpose,
    /// The halves of each head's rows interleaved, for so many heads.
    Interleave(usize),
    /// Without the first rows.
    Skip(usize),
}

impl Change {
    fn resolve(self, config: &Config) -> Result<Resolved, ConvertError> {
        let heads = ["num_attention_heads", "n_head"];
        Ok(match self {
            Self::None => Resolved::None,
            Self::AddOne => Resolved::AddOne,
            Self::Transpose => Resolved::Transpose,
            Self::InterleaveQ => Resolved::Interleave(config.count(&heads)? as usize),
            Self::SkipPadding => Resolved::Skip(hyperparameters::padding(config)? as usize),
            Self::InterleaveK => {
                let kv_heads = config.opt_count(&["num_key_value_heads"])?;
                Resolved::Interleave(match kv_heads {
                    Some(heads) => heads as usize,
                    None => config.count(&heads)? as usize,
                })
            }
        })
    }
}

impl Resolved {
    /// Whether a tensor of this shape can be changed so.
    fn fits(self, shape: &[usize]) -> bool {
        let dims = (1..=4).contains(&shape.len()) && !shape.contains(&0);
        dims && match self {
            Self::None | Self::AddOne => true,
            Self::Transpose => shape.len() <= 2,
            Self::Interleave(heads) => heads > 0 && shape[0].is_multiple_of(2 * heads),
            Self::Skip(rows) => shape[0] > rows,
        }
    }

    /// The new shape, slowest dimension first as the old one.
    fn shape(self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        match self {
            Self::Transpose => shape.reverse(),
            Self::Skip(rows) => shape[0] -= rows,
            _ => {}
        }
        shape
    }

    fn apply(self, shape: &[usize], values: Vec<f32>) -> Vec<f32> {
        match self {
            Self::None => values,
            Self::AddOne => values.into_iter().map(|x| x + 1.0).collect(),
            Self::Transpose => match *shape {
                [rows, columns] => {
                    (0..columns * rows).map(|i| values[i % rows * columns + i / rows]).collect()
                }
                _ => values,
            },
            Self::Skip(rows) => values[values.len() / shape[0] * rows..].to_vec(),
            // Hugging Face's LLaMA turns value i of a head with value i + half, GGUF's with its neighbour: row 2 i of
            // a head was row i, row 2 i + 1 was row i + half.
            Self::Interleave(heads) => {
                let row = values.len() / shape[0];
                let head_dim = shape[0] / heads;
                let mut out = Vec::with_capacity(values.len());
                for head in values.chunks_exact(head_dim * row) {
                    for i in 0..head_dim {
                        let from = i / 2 + i % 2 * (head_dim / 2);
                        out.extend_from_slice(&head[from * row..][..row]);
                    }
                }
                out
            }
        }
    }
}

/// The bytes of a tensor in its new format.
fn pack(name: &str, tensor: &Tensor, change: Resolved, format: Format, columns: usize) -> io::Result<Bytes> {
    let values = change.apply(&tensor.shape, tensor.values());
    let row_bytes = format.row_bytes(columns).ok_or_else(|| io::Error::other("rows are not whole blocks"))?;
    let mut bytes = vec![0; values.len() / columns * row_bytes];
    for (row, out) in values.chunks_exact(columns).zip(bytes.chunks_exact_mut(row_bytes)) {
        // F16 ends at 65504, and rounds up from there on to infinity.
        if format == Format::F16 && row.iter().any(|x| x.is_finite() && x.abs() >= 65_520.0) {
            let tensor = name.to_owned();
            return Err(io::Error::other(ConvertError::Overflow { tensor, format }));
        }
        format.quantize_row(row, out).map_err(io::Error::other)?;
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_heads_become_neighbours() {
        let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32, row as f32 + 0.5]).collect();
        let firsts = |values: Vec<f32>| values.chunks(2).map(|row| row[0]).collect::<Vec<_>>();
        let one = Resolved::Interleave(1).apply(&[8, 2], rows.clone());
        assert_eq!(firsts(one), [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
        let two = Resolved::Interleave(2).apply(&[8, 2], rows);
        assert_eq!(firsts(two), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert!(!Resolved::Interleave(3).fits(&[8, 2]));
    }

    #[test]
    fn rows_and_columns_change_places() {
        let values = Resolved::Transpose.apply(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn formats_go_by_what_a_tensor_is_for() {
        assert_eq!(choose("blk.0.attn_q.weight", &[64, 64], Format::Q8_0), Format::Q8_0);
        assert_eq!(choose("blk.0.attn_q.weight", &[48, 64], Format::Q8_0), Format::F16);
        assert_eq!(choose("blk.0.attn_q.bias", &[64], Format::F16), Format::F32);
        assert_eq!(choose("position_embd.weight", &[64, 64], Format::F16), Format::F32);
    }
}
