//! Vocabularies that lie, texts that are long or hostile, and text in pieces.

use std::error::Error;

use firecrest::gguf::{Array, Metadata, MetadataError, StringArray, Value};
use firecrest::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};
use proptest::prelude::*;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn strings<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(texts.into_iter().collect::<StringArray>()))
}

/// A byte-level vocabulary: a letter for each byte, `<|end|>` and `<tag>` (text that is never split), and the results of
/// `merges`.
fn byte_level(merges: &[&str]) -> Metadata {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let moved = (0..=255).filter(|byte| !printable(byte)).count() as u32;
    let letters = (0..=255u8).filter(printable).map(char::from);
    let letters = letters.chain((0x100..0x100 + moved).map(|code| char::from_u32(code).unwrap()));
    let mut tokens: Vec<String> = letters.map(String::from).collect();
    let mut kinds = vec![1; tokens.len()];
    tokens.extend(["<|end|>".to_owned(), "<tag>".to_owned()]);
    kinds.extend([3, 4]);
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    kinds.resize(tokens.len(), 1);
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", "gpt-2");
    meta.insert("tokenizer.ggml.tokens", strings(&tokens));
    meta.insert("tokenizer.ggml.token_type", kinds);
    meta.insert("tokenizer.ggml.merges", strings(merges));
    meta
}

/// A SentencePiece vocabulary of these tokens after `<unk>`, `<s>` and `</s>`, and of all bytes if `bytes`.
fn sentence_piece(tokens: &[&str], bytes: bool) -> Metadata {
    let mut texts: Vec<String> =
        ["<unk>", "<s>", "</s>"].iter().chain(tokens).map(|&text| text.to_owned()).collect();
    let mut kinds = vec![2, 3, 3];
    kinds.resize(texts.len(), 1);
    if bytes {
        texts.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
        kinds.resize(texts.len(), 6);
    }
    let mut meta = Metadata::new();
    meta.insert("tokenizer.ggml.model", "llama");
    meta.insert("tokenizer.ggml.scores", (0..texts.len()).map(|i| -(i as f32)).collect::<Vec<f32>>());
    meta.insert("tokenizer.ggml.tokens", strings(&texts));
    meta.insert("tokenizer.ggml.token_type", kinds);
    meta
}

fn tokenizer(meta: &Metadata) -> Tokenizer {
    Tokenizer::from_metadata(meta).unwrap()
}

/// The error that `meta` gives once `key` is set to `value`.
fn error_with(mut meta: Metadata, key: &str, value: impl Into<Value>) -> TokenizerError {
    meta.insert(format!("tokenizer.ggml.{key}"), value);
    Tokenizer::from_metadata(&meta).unwrap_err()
}

#[test]
fn threads_share_a_tokenizer() {
    let tokenizer = tokenizer(&byte_level(&["a b"]));
    let expected = tokenizer.encode("ab ab", PLAIN);
    std::thread::scope(|scope| {
        let encode = || assert_eq!(tokenizer.encode("ab ab", PLAIN), expected);
        (0..4).for_each(|_| drop(scope.spawn(encode)));
    });
}

#[test]
fn errors_name_what_is_wrong() {
    let bpe = || byte_level(&[]);
    let spm = || sentence_piece(&["a", "b"], false);
    let named = |name: &str| name.to_owned();
    assert_eq!(error_with(bpe(), "model", "rnn"), TokenizerError::UnknownModel { name: named("rnn") });
    let error = error_with(bpe(), "pre", "gpt-9");
    assert_eq!(error, TokenizerError::UnknownPreTokenizer { name: named("gpt-9") });
    assert_eq!(error.to_string(), r#"unknown pre-tokenizer "gpt-9""#);
    assert_eq!(error_with(bpe(), "tokens", strings([""; 0])), TokenizerError::VocabularySize { len: 0 });
    assert_eq!(
        error_with(spm(), "tokens", strings(["a", "b", "c", "a", "d"])),
        TokenizerError::DuplicateToken { text: named("a"), first: 0, second: 3 }
    );
    let too_short = |key, len| TokenizerError::TooShort { key, len, vocab: 5 };
    assert_eq!(error_with(spm(), "scores", vec![0f32; 4]), too_short("tokenizer.ggml.scores", 4));
    assert_eq!(error_with(spm(), "token_type", vec![1i32; 2]), too_short("tokenizer.ggml.token_type", 2));
    for merge in ["ab", "", " a", "a"] {
        let error = error_with(bpe(), "merges", strings(["a b", merge]));
        assert_eq!(error, TokenizerError::Merge { index: 1, text: named(merge) });
    }
    let no_token = |flag, id| TokenizerError::NoSpecialToken { flag, id };
    assert_eq!(
        error_with(sentence_piece(&[], false), "tokens", strings(["a"])),
        no_token("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
    );
    assert_eq!(
        error_with(sentence_piece(&["▁a"], false), "model", "bert"),
        no_token("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
    );
    let error = error_with(bpe(), "merges", 7u32);
    assert!(
        matches!(&error, TokenizerError::Metadata(MetadataError::Type { key, .. }) if key.ends_with("merges"))
    );
    assert!(error.source().is_some());
    let error = error_with(spm(), "scores", vec![f32::NAN; 5]);
    assert!(matches!(error, TokenizerError::Metadata(MetadataError::NotFinite { .. })));
    assert!(matches!(Tokenizer::from_metadata(&Metadata::new()), Err(TokenizerError::Metadata(_))));
}

#[test]
fn special_ids_beyond_the_vocabulary_count_as_absent() {
    let mut meta = sentence_piece(&["a"], false);
    meta.insert("tokenizer.ggml.padding_token_id", 4u32);
    meta.insert("tokenizer.ggml.eos_token_id", u32::MAX);
    meta.insert("tokenizer.ggml.mask_token_id", -1i32);
    let tokenizer = tokenizer(&meta);
    assert_eq!((tokenizer.pad(), tokenizer.eos(), tokenizer.mask()), (None, Some(2), None));
}

#[test]
fn damaged_character_maps_are_errors_or_harmless() {
    let mut meta = sentence_piece(&["▁", "a", "b"], false);
    meta.insert("tokenizer.ggml.model", "t5");
    let with = |charsmap: Vec<u8>| {
        let mut meta = meta.clone();
        meta.insert("tokenizer.ggml.precompiled_charsmap", charsmap);
        Tokenizer::from_metadata(&meta)
    };
    for charsmap in [
        vec![1],
        vec![8, 0, 0, 0, 1, 2, 3, 4],
        vec![255; 9],
        vec![3, 0, 0, 0, 1, 2, 3],
        vec![0, 0, 0, 0, 255],
    ] {
        assert_eq!(with(charsmap.clone()).unwrap_err(), TokenizerError::Charsmap { len: charsmap.len() });
    }
    // All units alike: each leads to itself, has a value, and the value is out of bounds.
    for unit in [0x0000_0161_u32, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x0000_0361, 0x8000_0161] {
        let mut charsmap = 4096_u32.to_le_bytes().to_vec();
        charsmap.extend(unit.to_le_bytes().repeat(1024));
        let ids = with(charsmap).unwrap().encode(&"ab".repeat(2000), PLAIN);
        assert!(ids.len() <= 4000);
    }
}

#[test]
fn merges_may_lead_through_pieces_that_are_no_tokens() {
    let mut meta = byte_level(&["a b", "ab c", "x y"]);
    let without = ["ab", "xy"];
    let Some(Value::Array(Array::String(tokens))) = meta.remove("tokenizer.ggml.tokens") else { panic!() };
    meta.insert("tokenizer.ggml.tokens", strings(tokens.iter().filter(|text| !without.contains(text))));
    let tokenizer = tokenizer(&meta);
    let id = |text| tokenizer.token_id(text).unwrap();
    assert_eq!(tokenizer.encode("abc", PLAIN), [id("abc")]);
    assert_eq!(
        tokenizer.encode("abxy", PLAIN),
        ["a", "b", "x", "y"].map(id),
        "such a piece comes as its bytes"
    );
}

#[test]
fn control_tokens_in_text_are_text() {
    let tokenizer = tokenizer(&byte_level(&[]));
    let id = |text| tokenizer.token_id(text).unwrap();
    let (end, tag) = (id("<|end|>"), id("<tag>"));
    let text = "a<|end|>b<tag><|end|>";
    let plain = tokenizer.encode(text, PLAIN);
    assert!(!plain.contains(&end));
    assert!(plain.contains(&tag), "a user-defined token is text");
    assert_eq!(tokenizer.encode(text, SPECIAL), [id("a"), end, id("b"), tag, end]);
    assert_eq!(tokenizer.decode_lossy(&plain), text);
    assert!(tokenizer.is_control(end) && !tokenizer.is_control(tag));
    assert!(tokenizer.is_end_of_generation(end) && !tokenizer.is_end_of_generation(tag));
    assert_eq!(tokenizer.eot(), Some(end));

    // Merges lead to none either; where they lead to a token that the file takes for text, it is.
    let mut meta = byte_level(&["< /", "</ s", "</s >", "a b"]);
    meta.insert("tokenizer.ggml.pre", "superbpe"); // which doesn't part letters from other characters
    let tokenizer = self::tokenizer(&meta);
    let id = |text| tokenizer.token_id(text).unwrap();
    assert_eq!(tokenizer.encode("</s>ab", PLAIN), [id("</s>"), id("ab")]);
    assert!(!tokenizer.is_end_of_generation(id("</s>")));
    let mut kinds = vec![1; tokenizer.vocab_size()];
    kinds[id("</s>") as usize] = 3;
    kinds[id("ab") as usize] = 2;
    meta.insert("tokenizer.ggml.token_type", kinds);
    let tokenizer = self::tokenizer(&meta);
    assert_eq!(tokenizer.encode("</s>ab", PLAIN), ["</s", ">", "a", "b"].map(id));
    assert!(tokenizer.is_end_of_generation(id("</s>")));

    // Nor do scores.
    let tokenizer = self::tokenizer(&sentence_piece(&["<s", ">", "<", "s", "▁", "</s"], true));
    for text in ["<s>", "</s>", "<unk>", "<0x0A>", "<s></s><s>"] {
        let ids = tokenizer.encode(text, PLAIN);
        assert!(!ids.iter().any(|&id| tokenizer.is_control(id)), "{text} gives {ids:?}");
        assert_eq!(tokenizer.decode_lossy(&ids), text);
    }
    assert_eq!(tokenizer.encode("<s>", SPECIAL), [1, 1]);
}

#[test]
fn without_bytes_a_run_of_unknown_letters_is_one_unknown_token() {
    let tokenizer = tokenizer(&sentence_piece(&["▁", "a"], false));
    assert_eq!(tokenizer.encode("aßßa", PLAIN), [3, 4, 0, 4]);
}

#[test]
fn decoding_waits_for_whole_characters() {
    let tokenizer = tokenizer(&byte_level(&[]));
    let mut decoder = tokenizer.decoder();
    let pieces: Vec<_> = tokenizer.encode("é🦀!", PLAIN).into_iter().map(|id| decoder.push(id)).collect();
    assert_eq!(pieces, ["", "é", "", "", "", "🦀", "!"]);
    assert_eq!(decoder.finish(), "");

    let crab = tokenizer.encode("🦀", PLAIN);
    let mut decoder = tokenizer.decoder();
    assert_eq!(decoder.push(crab[0]) + &decoder.push(crab[1]), "");
    assert_eq!(decoder.push(tokenizer.token_id("a").unwrap()), "\u{FFFD}a");
    assert_eq!(decoder.push(u32::MAX), "");
    assert_eq!(decoder.push(crab[0]), "");
    assert_eq!(decoder.finish(), "\u{FFFD}");
}

#[test]
fn the_space_before_the_text_comes_and_goes() {
    let tokenizer = tokenizer(&sentence_piece(&["▁", "▁a", "a", "b"], true));
    assert_eq!(tokenizer.encode("a a</s>a", SPECIAL), [1, 4, 4, 2, 4]);
    assert_eq!(tokenizer.decode_lossy(&[4, 4]), "a a");
    assert_eq!(tokenizer.decode_lossy(&[1, 4]), "<s> a");
    assert_eq!(tokenizer.decode_lossy(&[4, 9999, 5]), "aa", "ids beyond the vocabulary are nothing");
}

/// Each would take hours if it took quadratic time.
#[test]
fn long_texts_of_one_letter_take_no_longer_than_others() {
    let merges = ["a a", "aa aa", "aaaa aaaa", "Ġ Ġ", "ĠĠ ĠĠ", "ĠĠĠĠ ĠĠĠĠ", "1 1"];
    let mut bert = sentence_piece(&["▁a", "a", "aa"], false);
    bert.insert("tokenizer.ggml.model", "bert");
    for (key, id) in [("bos", 1u32), ("seperator", 2), ("unknown", 0)] {
        bert.insert(format!("tokenizer.ggml.{key}_token_id"), id);
    }
    let mut unigram = sentence_piece(&["▁", "a", "aa", "aaaa"], false);
    unigram.insert("tokenizer.ggml.model", "t5");
    let mut tokenizers = vec![
        tokenizer(&sentence_piece(&["▁", "▁▁", "▁▁▁▁", "a", "aa", "aaaa", "1", "a▁"], true)),
        tokenizer(&bert),
        tokenizer(&unigram),
    ];
    for pre in [
        "gpt-2",
        "llama-bpe",
        "default",
        "gpt-4o",
        "superbpe",
        "tiny_aya",
        "afmoe",
        "jais-2",
        "deepseek-llm",
        "bloom",
    ] {
        let mut meta = byte_level(&merges);
        meta.insert("tokenizer.ggml.pre", pre);
        meta.insert("tokenizer.ggml.add_bos_token", false);
        tokenizers.push(tokenizer(&meta));
    }
    for letter in ["a", " ", "\n", "1", "!", "<", "é", "a ", "\u{1}", "\u{301}"] {
        let text = letter.repeat(300_000 / letter.len()) + "x";
        for tokenizer in &tokenizers {
            assert!(tokenizer.encode(&text, SPECIAL).len() <= text.len() + 3);
        }
    }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in any::<String>(), parse_special: bool) {
        let bpe = byte_level(&["a b", "Ġ a", "Ċ Ċ", "Ã ©", "< |"]);
        let spm = sentence_piece(&["▁", "ab", "a▁b", "▁▁", "é", "<|"], true);
        for meta in [bpe, spm] {
            let tokenizer = tokenizer(&meta);
            let ids = tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special });
            // U+2581 is a space to SentencePiece.
            let expected = if tokenizer.add_bos() { text.replace('▁', " ") } else { text.clone() };
            prop_assert_eq!(tokenizer.decode_lossy(&ids), expected);
            let mut decoder = tokenizer.decoder();
            let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
            streamed += &decoder.finish();
            prop_assert_eq!(streamed, tokenizer.decode_lossy(&ids));
        }
    }
}
