//! Byte order of files, and of the fields inside the blocks of each tensor format.

use firecrest_kernels::format::Format;

/// The order in which a file stores the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first: nearly every file.
    Little,
    /// Most significant first: files made for machines like IBM Z.
    Big,
}

impl std::fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ByteOrder::Little => "little-endian",
            ByteOrder::Big => "big-endian",
        })
    }
}

/// The fields of a block in order, as runs of `(bytes of a field, fields)`; together they fill the block.
///
/// A field is what GGML's structs and its code read or write as one number, hence what a big-endian machine stores the
/// other way round. `None` for IQ2_XXS: GGML writes its grid indices as 32-bit words and reads them as bytes, so what
/// a big-endian file holds depends on who wrote it.
pub(super) const fn fields(format: Format) -> Option<&'static [(usize, usize)]> {
    Some(match format {
        Format::I8 => &[(1, 1)],
        Format::F16 | Format::BF16 | Format::I16 => &[(2, 1)],
        Format::F32 | Format::I32 => &[(4, 1)],
        Format::F64 | Format::I64 => &[(8, 1)],
        Format::Q4_0 | Format::IQ4_NL | Format::Q1_0 | Format::Q2_0 => &[(2, 1), (1, 16)],
        Format::Q4_1 => &[(2, 2), (1, 16)],
        // The fifth bits are a 32-bit word.
        Format::Q5_0 => &[(2, 1), (4, 1), (1, 16)],
        Format::Q5_1 => &[(2, 2), (4, 1), (1, 16)],
        Format::Q8_0 => &[(2, 1), (1, 32)],
        Format::Q8_1 => &[(2, 2), (1, 32)],
        Format::Q2_K => &[(1, 80), (2, 2)],
        Format::Q3_K => &[(1, 108), (2, 1)],
        Format::Q4_K => &[(2, 2), (1, 140)],
        Format::Q5_K => &[(2, 2), (1, 172)],
        Format::Q6_K => &[(1, 208), (2, 1)],
        Format::Q8_K => &[(4, 1), (1, 256), (2, 16)],
        Format::IQ1_S => &[(2, 1), (1, 32), (2, 8)],
        Format::IQ1_M => &[(1, 48), (2, 4)],
        Format::IQ2_XXS => return None,
        Format::IQ2_XS => &[(2, 33), (1, 8)],
        Format::IQ2_S => &[(2, 1), (1, 80)],
        Format::IQ3_XXS => &[(2, 1), (1, 64), (4, 8)],
        Format::IQ3_S => &[(2, 1), (1, 108)],
        Format::IQ4_XS => &[(2, 2), (1, 132)],
        Format::TQ1_0 => &[(1, 52), (2, 1)],
        Format::TQ2_0 => &[(1, 64), (2, 1)],
        Format::MXFP4 => &[(1, 17)],
        Format::NVFP4 => &[(1, 36)],
    })
}

/// Reverses the bytes of every field in whole blocks.
pub(super) fn swap(fields: &[(usize, usize)], mut data: &mut [u8]) {
    while !data.is_empty() {
        for &(width, count) in fields {
            let (run, rest) = std::mem::take(&mut data).split_at_mut(width * count);
            data = rest;
            if width > 1 {
                run.chunks_exact_mut(width).for_each(<[u8]>::reverse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_fill_the_block() {
        for &format in Format::ALL {
            let Some(fields) = fields(format) else { continue };
            let bytes: usize = fields.iter().map(|(width, count)| width * count).sum();
            assert_eq!(bytes, format.block_bytes(), "{format}");
        }
    }

    #[test]
    fn swapping_reverses_each_field_and_twice_is_nothing() {
        for &format in Format::ALL {
            let Some(fields) = fields(format) else { continue };
            let original: Vec<u8> = (0..3 * format.block_bytes()).map(|i| (i * 7) as u8).collect();
            let mut data = original.clone();
            swap(fields, &mut data);
            assert_eq!(data == original, fields.iter().all(|(width, _)| *width == 1), "{format}");
            swap(fields, &mut data);
            assert_eq!(data, original, "{format}");
        }
        let mut block: Vec<u8> = (0..22).collect();
        swap(fields(Format::Q5_0).unwrap(), &mut block);
        assert_eq!(block[..8], [1, 0, 5, 4, 3, 2, 6, 7]);
    }
}
