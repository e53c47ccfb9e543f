//! Any vocabulary either makes a tokenizer or is an error; tokens of any text are in the vocabulary, and decode the same
//! one by one and at once.
//!
//! The input is fields parted by 0xFF: a choice of options, tokens, merges and kinds (each parted by 0xFE), a character
//! map, and the text.
#![no_main]

use firecrest::gguf::{Array, Metadata, StringArray, Value};
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

const PRE_TOKENIZERS: [&str; 12] = [
    "default",
    "llama-bpe",
    "gpt-2",
    "falcon",
    "gpt-4o",
    "jais-2",
    "superbpe",
    "tiny_aya",
    "afmoe",
    "kimi-k2",
    "deepseek-llm",
    "gemma4",
];

fuzz_target!(|input: &[u8]| {
    let mut fields = input.split(|&byte| byte == 0xFF);
    let mut field = || fields.next().unwrap_or_default();
    let options = |i: usize, options: &[u8]| options.get(i).copied().unwrap_or_default();
    let header = field();
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", ["llama", "gpt2", "bert", "t5"][usize::from(options(0, header)) % 4]);
    meta.insert("tokenizer.ggml.pre", PRE_TOKENIZERS[usize::from(options(1, header)) % PRE_TOKENIZERS.len()]);
    for (i, key) in
        ["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"].iter().enumerate()
    {
        if options(2, header) >> i & 1 == 1 {
            meta.insert(format!("tokenizer.ggml.{key}"), options(2, header) >> (i + 4) & 1 == 1);
        }
    }
    meta.insert("tokenizer.ggml.bos_token_id", u32::from(options(3, header)));
    meta.insert("tokenizer.ggml.unknown_token_id", u32::from(options(4, header)));
    if options(5, header) & 1 == 1 {
        meta.insert("general.name", "phi3");
    }
    meta.insert("tokenizer.ggml.tokens", Value::Array(Array::String(strings(field()))));
    meta.insert("tokenizer.ggml.merges", Value::Array(Array::String(strings(field()))));
    let kinds = field();
    if !kinds.is_empty() {
        meta.insert(
            "tokenizer.ggml.token_type",
            Value::Array(Array::U8(kinds.iter().map(|kind| kind % 8).collect())),
        );
        let scores = kinds.iter().map(|&kind| -f32::from(kind)).collect();
        meta.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    }
    let charsmap = field();
    if !charsmap.is_empty() {
        meta.insert("tokenizer.ggml.precompiled_charsmap", Value::Array(Array::U8(charsmap.to_vec())));
    }
    let text = String::from_utf8_lossy(field());

    let Ok(tokenizer) = Tokenizer::from_metadata(&meta) else { return };
    for (add_special, parse_special) in [(false, false), (true, true)] {
        let ids = tokenizer.encode(&text, EncodeOptions { add_special, parse_special });
        for &id in &ids {
            assert!((id as usize) < tokenizer.vocab_size());
            assert!(parse_special || !tokenizer.is_control(id) || tokenizer.unk() == Some(id));
        }
        let mut decoder = tokenizer.decoder();
        let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
        streamed += &decoder.finish();
        assert_eq!(streamed, tokenizer.decode_lossy(&ids));
        tokenizer.decode_cleaned(&ids);
    }
});

fn strings(field: &[u8]) -> StringArray {
    field.split(|&byte| byte == 0xFE).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}
