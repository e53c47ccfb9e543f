//! Broken and hostile files: each is an error that says what is wrong and where, soon and without much memory.

use std::error::Error;
use std::time::{Duration, Instant};

use firecrest::gguf::{Gguf, GgufError, Writer};
use firecrest_testkit::gguf::{Builder, Value};
use proptest::prelude::*;

/// The error as a user sees it, without the line that names the file.
fn fault(file: Vec<u8>) -> String {
    let start = Instant::now();
    let error = Gguf::from_bytes(file).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{error}");
    let mut text = String::new();
    let mut cause: Option<&dyn Error> = if error.source().is_some() { error.source() } else { Some(&error) };
    while let Some(error) = cause {
        text += if text.is_empty() { "" } else { ": " };
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// A file of every kind of part, with which corruption has something to break.
fn sound() -> Vec<u8> {
    Builder::new()
        .alignment(32)
        .key("general.architecture", "llama")
        .key("tokens", ["<s>", "", "é"])
        .key("scores", [0.5f32, -1.0])
        .key("flags", [true, false])
        .key("ids", [1i64, -1])
        .key("add_bos", true)
        .key("byte", 1u8)
        .tensor("q", &[32, 2], 2, [7; 36])
        .tensor("f", &[2, 3], 0, [1; 24])
        .bytes()
}

#[test]
fn headers() {
    let huge = 1 << 60;
    let cases = [
        (Builder::new().magic(*b"GGML").bytes(), r#"header (byte 0): begins with "GGML", not "GGUF""#),
        (Builder::new().magic(*b"\x7fELF").bytes(), r#"header (byte 0): begins with "\x7fELF", not "GGUF""#),
        (Builder::new().version(1).bytes(), "header (byte 4): version 1 is not supported"),
        (Builder::new().version(4).bytes(), "header (byte 4): version 4 is not supported"),
        (Builder::new().version(2).big_endian().bytes(), "header (byte 4): version 2 is not supported"),
        (Builder::new().version(0x0102_0304).bytes(), "header (byte 4): version 16909060 is not supported"),
        (
            Builder::new().claim_tensors(huge).bytes(),
            "header (byte 8): needs 18446744073709551615 bytes, but the file has 8 more",
        ),
        (
            Builder::new().claim_keys(u64::MAX).bytes(),
            "header (byte 16): needs 18446744073709551615 bytes, but the file has 0 more",
        ),
        (
            Builder::new().key("a", 1u8).claim_keys(2).bytes(),
            "header (byte 16): needs 26 bytes, but the file has 14 more",
        ),
        (vec![], "header (byte 0): needs 4 bytes, but the file has 0 more"),
        (b"GGU".to_vec(), "header (byte 0): needs 4 bytes, but the file has 3 more"),
    ];
    for (file, message) in cases {
        assert_eq!(fault(file), message);
    }
}

#[test]
fn metadata() {
    let huge = (1u64 << 60).to_le_bytes().to_vec();
    let array = Value::claimed_array;
    let key = |value: Value| Builder::new().key("k", value).bytes();
    let cases = [
        (
            // A key whose name claims to be 2^60 bytes long.
            [&Builder::new().claim_keys(1).bytes()[..], &huge, &[0; 8]].concat(),
            "name of metadata key 0 (byte 32): needs 1152921504606846976 bytes, but the file has 8 more",
        ),
        (
            key(Value::Raw(8, huge.clone())),
            "metadata key k (byte 45): needs 1152921504606846976 bytes, but the file has 0 more",
        ),
        (
            key(array(5, 1 << 60, &[0; 64])),
            "metadata key k (byte 49): needs 4611686018427387904 bytes, but the file has 64 more",
        ),
        (
            key(array(12, 1 << 61, &[0; 64])),
            "metadata key k (byte 49): needs 18446744073709551615 bytes, but the file has 64 more",
        ),
        (
            key(array(7, 1 << 60, &[1; 64])),
            "metadata key k (byte 49): needs 1152921504606846976 bytes, but the file has 64 more",
        ),
        (key(array(8, 9, &[0; 64])), "metadata key k (byte 49): needs 72 bytes, but the file has 64 more"),
        (
            key(array(8, 2, &[[5, 0, 0, 0, 0, 0, 0, 0], [b'x'; 8]].concat())),
            "metadata key k (byte 62): needs 8 bytes, but the file has 3 more",
        ),
        (key(Value::Raw(13, vec![0; 8])), "metadata key k (byte 33): unknown value type 13"),
        (key(array(13, 1, &[0; 8])), "metadata key k (byte 37): unknown value type 13"),
        (key(array(9, 1, &[0; 64])), "metadata key k (byte 37): arrays of arrays are not supported"),
        (key(Value::Raw(7, vec![2])), "metadata key k (byte 37): a bool is 2, neither 0 nor 1"),
        (key(array(7, 3, &[0, 1, 255])), "metadata key k (byte 51): a bool is 255, neither 0 nor 1"),
        (key(Value::String(vec![b'a', 0xff])), "metadata key k (byte 45): not UTF-8"),
        (
            key(Value::Array(8, vec![Value::from("a"), Value::String(vec![0xc3]), Value::from("b")])),
            "metadata key k (byte 49): string 1 is not UTF-8",
        ),
        (
            Builder::new().key("k", 1u8).raw_key(b"\xf0\x9f", 1u8).bytes(),
            "name of metadata key 1 (byte 46): not UTF-8",
        ),
        (Builder::new().key("k", 1u8).key("k", 1u8).bytes(), "metadata key k (byte 38): occurs twice"),
    ];
    for (file, message) in cases {
        assert_eq!(fault(file), message);
    }
}

#[test]
fn names() {
    let long = "x".repeat(65536);
    let message = "(byte 24): 65536 bytes are too long for a name";
    assert_eq!(fault(Builder::new().key(&long, 1u8).bytes()), format!("name of metadata key 0 {message}"));
    assert_eq!(
        fault(Builder::new().tensor(&long, &[1], 24, [0]).bytes()),
        format!("name of tensor 0 {message}")
    );
    let file = Builder::new().tensor("\x1b[2J", &[0], 0, []).bytes();
    assert_eq!(fault(file), "tensor \\u{1b}[2J (byte 24): shape [0] is empty or too large");
}

#[test]
fn alignments() {
    for alignment in [0u64, 3, 48, (1 << 31) + 1, 1 << 32, 1 << 63, u64::MAX] {
        let file = Builder::new().key("general.alignment", alignment).bytes();
        let message = format!(
            "metadata key general.alignment (byte 24): {alignment} is not a power of two that fits 32 bits"
        );
        assert_eq!(fault(file), message);
    }
    let file = Builder::new().key("general.alignment", "32").bytes();
    let message = "metadata key general.alignment (byte 24): not what it must be: \
                   metadata key general.alignment is string, expected u64";
    assert_eq!(fault(file), message);
    // So large that the data section is past the end of the file.
    let file = Builder::new().alignment(1 << 31).tensor("t", &[1], 24, [0]).bytes();
    assert!(
        fault(file).starts_with("tensor t (byte 57): 1 bytes of data at byte 2147483648 reach past the end")
    );
}

#[test]
fn tensors() {
    let one = |shape: &[u64], format| Builder::new().tensor("t", shape, format, [0; 64]).bytes();
    let at = |offset| Builder::new().tensor_at("t", &[16], 0, offset, [0; 64]).bytes();
    let two =
        |a, b| Builder::new().tensor_at("a", &[8], 0, a, [0; 32]).tensor_at("b", &[8], 0, b, [0; 32]).bytes();
    let cases = [
        (one(&[1; 5], 0), "tensor t (byte 24): has 5 dimensions, at most 4 are supported"),
        (one(&[0], 0), "tensor t (byte 24): shape [0] is empty or too large"),
        (one(&[4, 0, 2], 0), "tensor t (byte 24): shape [4, 0, 2] is empty or too large"),
        (
            one(&[1 << 32, 1 << 32], 0),
            "tensor t (byte 24): shape [4294967296, 4294967296] is empty or too large",
        ),
        // The values can be counted, their bytes can't.
        (
            one(&[1 << 31, 1 << 31, 4], 0),
            "tensor t (byte 24): shape [2147483648, 2147483648, 4] is empty or too large",
        ),
        (
            one(&[u64::MAX], 24),
            "tensor t (byte 24): 18446744073709551615 bytes of data at byte 64 reach past the end of the file (128)",
        ),
        (
            one(&[1 << 60], 24),
            "tensor t (byte 24): 1152921504606846976 bytes of data at byte 64 reach past the end of the file (128)",
        ),
        (one(&[1], 4), "tensor t (byte 24): unknown tensor format 4"),
        (one(&[1], u32::MAX), "tensor t (byte 24): unknown tensor format 4294967295"),
        (one(&[48], 2), "tensor t (byte 24): rows of 48 values are not whole Q4_0 blocks of 32"),
        (one(&[32, 8], 12), "tensor t (byte 24): rows of 32 values are not whole Q4_K blocks of 256"),
        (
            one(&[17], 0),
            "tensor t (byte 24): 68 bytes of data at byte 64 reach past the end of the file (128)",
        ),
        (at(4), "tensor t (byte 24): data offset 4 is not a multiple of the alignment 32"),
        (at(32), "tensor t (byte 24): 64 bytes of data at byte 96 reach past the end of the file (128)"),
        (
            at(u64::MAX - 31),
            "tensor t (byte 24): 64 bytes of data at byte 18446744073709551615 reach past the end of the file (128)",
        ),
        (two(0, 0), "tensor b (byte 57): data overlaps that of tensor a"),
        (
            Builder::new().tensor_at("a", &[9], 0, 32, [0; 36]).tensor_at("b", &[16], 0, 0, [0; 64]).bytes(),
            "tensor a (byte 24): data overlaps that of tensor b",
        ),
        (
            Builder::new().tensor("t", &[1], 0, [0; 4]).tensor("t", &[1], 0, [0; 4]).bytes(),
            "tensor t (byte 57): occurs twice",
        ),
        (
            Builder::new().raw_tensor(b"\xff", &[1], 0, None, [0; 4]).bytes(),
            "name of tensor 0 (byte 32): not UTF-8",
        ),
        (
            Builder::new().big_endian().tensor("t", &[256], 16, [0; 66]).bytes(),
            "tensor t (byte 24): IQ2_XXS is not supported in big-endian files",
        ),
    ];
    for (file, message) in cases {
        assert_eq!(fault(file), message);
    }
    assert!(Gguf::from_bytes(two(32, 0)).is_ok());
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let file = sound();
    assert!(Gguf::from_bytes(file.clone()).is_ok());
    for len in 0..file.len() {
        let error = Gguf::from_bytes(file[..len].to_vec()).err();
        assert!(matches!(error, Some(GgufError::Malformed { .. })), "{len} bytes");
    }
}

fn rewrite(gguf: &Gguf) -> Vec<u8> {
    let mut writer = Writer::with_metadata(gguf.metadata().clone());
    for tensor in gguf.tensors() {
        writer.tensor(&tensor.name, tensor.format, &tensor.shape, gguf.tensor_bytes(tensor)).unwrap();
    }
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    file
}

/// Whatever opens must also hand out all it has, and survive being written.
fn read_all(file: Vec<u8>) {
    let Ok(gguf) = Gguf::from_bytes(file) else { return };
    for (key, value) in gguf.metadata().iter() {
        let _ = (gguf.metadata().opt_strings(key), gguf.metadata().opt_f32(key), format!("{value:?}"));
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert_eq!(gguf.tensor_bytes(tensor).len(), tensor.data_bytes());
    }
    // A large alignment is sound, but its padding is not worth the time.
    if gguf.alignment() <= 4096 {
        let written = rewrite(&gguf);
        assert_eq!(written, rewrite(&Gguf::from_bytes(written.clone()).unwrap()));
    }
}

#[test]
fn any_byte_can_be_anything() {
    let file = sound();
    for at in 0..file.len() {
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xff, file[at] ^ 1, file[at] ^ 0x20, file[at].wrapping_add(1)] {
            let mut file = file.clone();
            file[at] = byte;
            read_all(file);
        }
    }
}

proptest! {
    #[test]
    fn several_bytes_can_be_anything(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut file = sound();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        read_all(file);
    }

    #[test]
    fn anything_can_follow_a_header(order in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..256)) {
        let builder = Builder::new().claim_keys(1).claim_tensors(1);
        let builder = if order { builder.big_endian() } else { builder };
        read_all([builder.bytes(), tail].concat());
    }
}

/// A big file that fails only at its end, after as much as possible was read.
#[test]
#[cfg(target_os = "linux")]
fn memory_stays_near_the_size_of_the_file() {
    let peak_bytes = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    };
    let keys = (0..20_000).fold(Builder::new(), |builder, i| builder.key(&format!("k{i}"), 0u8));
    let tensors =
        (0..20_000).fold(Builder::new(), |builder, i| builder.tensor(&format!("t{i}"), &[1], 24, [0]));
    let files = [
        keys.key("k0", 0u8).bytes(),
        tensors.tensor("t0", &[1], 24, [0]).bytes(),
        Builder::new().key("k", Value::claimed_array(8, 125_000, &vec![0; 1_000_000])).key("k", 0u8).bytes(),
        Builder::new().key("k", Value::claimed_array(8, 125_001, &vec![0; 1_000_000])).bytes(),
        Builder::new().key("k", Value::claimed_array(0, 1 << 40, &vec![0; 1_000_000])).bytes(),
    ];
    for file in files {
        fault(file);
    }
    assert!(peak_bytes() < 50 << 20, "{} bytes", peak_bytes());
}
