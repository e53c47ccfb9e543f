//! Tensor formats against blocks that GGML packed and unpacked.
//!
//! `data/quant` holds a selection of them, see the README there. Where the environment variable `FIRECREST_REF` names
//! a folder with the full reference, that is checked too.

use std::fs;
use std::path::{Path, PathBuf};

use firecrest_kernels::format::float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use firecrest_kernels::format::{CHUNK, Codes, Format, GROUPS, Quant, QuantizeError};
use firecrest_kernels::with_quant;
use serde_json::Value;

/// A folder of reference data: `index.json` says where in which file each array lies.
struct Reference {
    folder: PathBuf,
    index: Value,
}

impl Reference {
    /// The selection in this repository, then the full reference where there is one.
    fn all() -> Vec<Reference> {
        let selection = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant");
        let full = std::env::var_os("FIRECREST_REF").map(|folder| Path::new(&folder).join("quant"));
        [Some(selection), full].into_iter().flatten().map(Reference::open).collect()
    }

    fn open(folder: PathBuf) -> Reference {
        let index = fs::read(folder.join("index.json")).unwrap();
        Reference { index: serde_json::from_slice(&index).unwrap(), folder }
    }

    fn types(&self) -> impl Iterator<Item = (Format, &Value)> {
        self.index["types"].as_object().unwrap().iter().map(|(name, entry)| {
            let format = Format::ALL.iter().find(|format| format.name() == name);
            (*format.unwrap_or_else(|| panic!("unknown format {name}")), entry)
        })
    }

    fn bytes(&self, file: &Value, array: &Value) -> Vec<u8> {
        let file = fs::read(self.folder.join(file.as_str().unwrap())).unwrap();
        let [offset, len] = ["offset", "nbytes"].map(|key| array[key].as_u64().unwrap() as usize);
        file[offset..offset + len].to_vec()
    }

    fn f32s(&self, file: &Value, array: &Value) -> Vec<f32> {
        self.bytes(file, array).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn u16s(&self, file: &Value, array: &Value) -> Vec<u16> {
        self.bytes(file, array).as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect()
    }
}

#[track_caller]
fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what}: value {i} is {got:e}, not {want:e}");
    }
}

/// Bytes that look random (xorshift).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn dequantization_equals_the_reference_bit_for_bit() {
    for reference in Reference::all() {
        let mut formats = Vec::new();
        for (format, entry) in reference.types() {
            for case in ["random_blocks", "quantized", "quantized_imatrix"] {
                let arrays = &entry[case];
                if arrays.is_null() {
                    continue;
                }
                let blocks = reference.bytes(&entry["file"], &arrays["blocks"]);
                let want = reference.f32s(&entry["file"], &arrays["f32"]);
                let mut got = vec![f32::NAN; want.len()];
                format.dequantize(&blocks, &mut got);
                assert_same_bits(&got, &want, &format!("{format} {case}"));
                formats.push(format);
            }
        }
        for format in Format::ALL {
            assert!(!format.is_quantized() || formats.contains(format), "no reference for {format}");
        }
    }
}

#[test]
fn numbers_of_other_widths_convert_to_f32() {
    let row = |format: Format, bytes: &[u8]| {
        let mut out = [0.0; 2];
        format.dequantize(bytes, &mut out);
        out
    };
    assert_eq!(
        row(Format::F64, [1.5f64, -1e300].map(f64::to_le_bytes).as_flattened()),
        [1.5, f32::NEG_INFINITY]
    );
    assert_eq!(row(Format::I8, &[127, 128]), [127.0, -128.0]);
    assert_eq!(row(Format::I16, [300i16, -300].map(i16::to_le_bytes).as_flattened()), [300.0, -300.0]);
    assert_eq!(row(Format::I32, [1i32 << 30, -7].map(i32::to_le_bytes).as_flattened()), [1073741824.0, -7.0]);
    assert_eq!(
        row(Format::I64, [1i64 << 40, -7].map(i64::to_le_bytes).as_flattened()),
        [1099511627776.0, -7.0]
    );
}

#[test]
#[should_panic = "bytes of a row of 256 Q6_K"]
fn a_row_of_the_wrong_size_is_refused() {
    Format::Q6_K.dequantize(&[0; 209], &mut [0.0; 256]);
}

#[test]
fn half_floats_convert_as_the_reference() {
    for reference in Reference::all() {
        let arrays = &reference.index["scalar_convert"];
        let file = &arrays["file"];
        let values = reference.f32s(file, &arrays["f32"]);
        let f16 = reference.u16s(file, &arrays["f16_bits"]);
        let bf16 = reference.u16s(file, &arrays["bf16_bits"]);
        for ((&value, f16), bf16) in values.iter().zip(f16).zip(bf16) {
            assert_eq!(f32_to_f16(value), f16, "{value:e}");
            assert_eq!(f32_to_bf16(value), bf16, "{value:e}");
        }
    }
}

#[test]
fn every_half_float_survives_widening() {
    for bits in 0..=u16::MAX {
        for (widened, narrowed) in [
            (f16_to_f32(bits), f32_to_f16(f16_to_f32(bits))),
            (bf16_to_f32(bits), f32_to_bf16(bf16_to_f32(bits))),
        ] {
            if widened.is_nan() {
                assert!(
                    f16_to_f32(f32_to_f16(widened)).is_nan() && bf16_to_f32(f32_to_bf16(widened)).is_nan()
                );
            } else {
                assert_eq!(narrowed, bits, "{bits:#06x} is {widened:e}");
            }
        }
    }
    assert_eq!(f16_to_f32(1), 2f32.powi(-24));
    assert_eq!(f16_to_f32(0x8400), -(2f32.powi(-14)));
    assert_eq!(f16_to_f32(0xfc00), f32::NEG_INFINITY);
    // A NaN whose upper half alone would be an infinity.
    assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
}

/// What operations rely on, for any bytes: hostile files included.
#[test]
fn unpacking_keeps_its_contract() {
    for &format in Format::ALL {
        with_quant!(format, Q => {
            assert_eq!(Q::FORMAT, format);
            assert!([16, 32].contains(&Q::GROUP), "{format}");
            let blocks = CHUNK / format.block_len();
            for seed in 0..8 {
                let chunk = noise(blocks * format.block_bytes(), seed);
                check_chunk::<Q>(&chunk);
            }
            // Every field all ones: NaN scales, the last grid points.
            check_chunk::<Q>(&vec![0xff; blocks * format.block_bytes()]);
        });
    }
}

fn check_chunk<Q: Quant>(chunk: &[u8]) {
    let format = Q::FORMAT;
    let whole = (Q::scales(chunk), [0, 1, 2, 3].map(|pair| Q::codes(chunk, pair)));
    let mut values = [0.0; CHUNK];
    format.dequantize(chunk, &mut values);

    for blocks in 0..=CHUNK / format.block_len() {
        let len = blocks * format.block_len();
        let short = &chunk[..blocks * format.block_bytes()];
        let scales = Q::scales(short);
        for g in 0..GROUPS {
            let inside = g * Q::GROUP < len;
            let [scale, offset] = if inside { [whole.0.scale[g], whole.0.offset[g]] } else { [0.0; 2] };
            assert_eq!(scales.scale[g].to_bits(), scale.to_bits(), "{format}, {len} weights: scale {g}");
            assert_eq!(scales.offset[g].to_bits(), offset.to_bits(), "{format}, {len} weights: offset {g}");
            assert!(Q::OFFSET || offset == 0.0, "{format}: offset {g}");
        }
        for pair in 0..4 {
            let codes = Q::codes(short, pair);
            for (i, code) in codes.into_iter().enumerate() {
                let want = if pair * 64 + i < len { whole.1[pair][i] } else { 0 };
                assert_eq!(code, want, "{format}, {len} weights: code {}", pair * 64 + i);
                if let Codes::Unsigned { max, zero } = Q::CODES {
                    assert!((0..=max as i8).contains(&code) && zero <= max, "{format}: code {code}");
                }
            }
        }
        let mut prefix = vec![0.0; len];
        format.dequantize(short, &mut prefix);
        for (i, (got, want)) in prefix.iter().zip(&values).enumerate() {
            assert!(got.to_bits() == want.to_bits() || want.is_nan(), "{format}, {len} weights: weight {i}");
        }
    }
}

#[test]
fn quantizers_make_the_bytes_of_the_reference() {
    let supported =
        [Format::F16, Format::BF16, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0];
    for reference in Reference::all() {
        for format in supported {
            let entry = &reference.index["types"][format.name()];
            let arrays = &entry["quantized"];
            let input = match arrays.get("input") {
                Some(input) => reference.f32s(&entry["file"], input),
                None => {
                    let input = &reference.index["input"];
                    reference.f32s(&input["file"], &input["x"])
                }
            };
            let want = reference.bytes(&entry["file"], &arrays["blocks"]);
            let mut got = vec![0; want.len()];
            format.quantize_row(&input, &mut got).unwrap();
            for (i, (got, want)) in
                got.chunks(format.block_bytes()).zip(want.chunks(format.block_bytes())).enumerate()
            {
                assert_eq!(got, want, "{format} block {i}");
            }
        }
    }
    for &format in Format::ALL {
        let (row, mut out) = (vec![1.0; format.block_len()], vec![0; format.block_bytes()]);
        let result = format.quantize_row(&row, &mut out);
        if supported.contains(&format) || format == Format::F32 {
            assert_eq!(result, Ok(()));
        } else {
            assert_eq!(result, Err(QuantizeError::Unsupported(format)));
        }
    }
}

#[test]
fn quantizers_take_any_float() {
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45] {
        let mut row = [0.25; 64];
        row[3] = special;
        row[9] = -special;
        for format in [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0] {
            let mut bytes = vec![0; format.row_bytes(row.len()).unwrap()];
            format.quantize_row(&row, &mut bytes).unwrap();
            let mut values = [0.0; 64];
            format.dequantize(&bytes, &mut values);
            for value in &values[32..] {
                assert!((value - 0.25).abs() < 1e-4, "{format} with {special}: {value} beside its block");
            }
        }
    }
}
