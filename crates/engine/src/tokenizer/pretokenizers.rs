//! The pre-tokenizers that `tokenizer.ggml.pre` can name.
//!
//! Names and what goes with them are those of llama.cpp. The expressions are those of the models' own `tokenizer.json`
//! where they are known to differ from llama.cpp's, which can't run all of them: the models were trained with theirs.

use super::pretokenize::SPACES;
use super::pretokenize::Step::{
    self, BeforeThousands, Match, MatchHalvingSpaces, Thousands, ThousandsOfWholeNumbers,
};
use super::vocab::Spelling;

/// A pre-tokenizer, and what else its name implies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How text is split into words.
    pub(super) steps: &'static [Step],
    /// Whether a word that is a token stays whole, whatever the merges would make of it.
    pub(super) whole_words: bool,
    /// Whether BOS is added where the file doesn't say.
    pub(super) add_bos: bool,
    /// Whether spaces before punctuation are removed when text is decoded for reading.
    pub(super) clean_up: bool,
    /// How the vocabulary writes text.
    pub(super) spelling: Spelling,
}

/// The rules of the pre-tokenizer called `name`.
pub(super) fn rules(name: &str) -> Option<Rules> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, rules)| *rules)
}

/// The name of the pre-tokenizer that splits by these expressions, one after another, as a `tokenizer.json` has them.
///
/// Names that differ in nothing else are told apart by `whole_words` and, where that leaves a choice, by `clean_up`.
#[cfg(not(target_family = "wasm"))]
pub(super) fn name(expressions: &[String], whole_words: bool, clean_up: bool) -> Option<&'static str> {
    let fits = |rules: &Rules| {
        let same = |(step, expression): (&Step, &String)| match step {
            Match(alternatives) => alternatives.join("|") == *expression,
            _ => false,
        };
        rules.spelling == Spelling::ByteLevel
            && rules.whole_words == whole_words
            && rules.steps.len() == expressions.len()
            && rules.steps.iter().zip(expressions).all(same)
    };
    let mut fitting: Vec<_> = TABLE.iter().filter(|(_, rules)| fits(rules)).collect();
    fitting.sort_by_key(|(_, rules)| rules.clean_up != clean_up);
    fitting.first()?.0.first().copied()
}

// Pieces of expressions that many models share.
const CONTRACTION: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SMALL_CONTRACTION: &str = r"'s|'t|'re|'ve|'m|'ll|'d";
const WORD: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = r"\p{N}{1,3}";
const SYMBOLS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
const SYMBOLS_SLASHES: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
const LINES: &str = r"\s*[\r\n]+";
const SPACES_BEFORE_SPACE: &str = r"\s+(?!\S)";

// Words that begin with capitals and go on with small letters, so that camelCase is two.
const CASED: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
);
const CASED_CONTRACTED: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
);
const CASED_NOT_HAN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
);

// Whole expressions.
const GPT_2: &[&str] =
    &[SMALL_CONTRACTION, r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", SPACES_BEFORE_SPACE, SPACES];
const LLAMA_3: &[&str] = &[CONTRACTION, WORD, THREE_DIGITS, SYMBOLS, LINES, SPACES_BEFORE_SPACE, SPACES];
const QWEN_2: &[&str] = &[CONTRACTION, WORD, DIGIT, SYMBOLS, LINES, SPACES_BEFORE_SPACE, SPACES];
const GPT_4O: &[&str] =
    &[CASED_CONTRACTED, THREE_DIGITS, SYMBOLS_SLASHES, LINES, SPACES_BEFORE_SPACE, SPACES];
const DEEPSEEK_3: &[&str] = &[
    r"[!-/:-@\[-`{-~][A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    LINES,
    SPACES_BEFORE_SPACE,
    SPACES,
];
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const NOT_LINES: &[&str] = &[r"[^\n]+", r"\n+"];
const HAN_AND_KANA: &str = "[一-龥぀-ゟ゠-ヿ]+";
const HAN_AND_HANGUL: &str = "[一-龥ࠀ-一가-퟿]+";
/// Letters with case, as of the Unicode version that the model's makers had.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
    r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}",
    r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
    r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}",
    r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
);

const PLAIN: Rules =
    Rules { steps: &[], whole_words: false, add_bos: false, clean_up: false, spelling: Spelling::ByteLevel };
const CLEAN: Rules = Rules { clean_up: true, ..PLAIN };

const TABLE: &[(&[&str], Rules)] = &[
    (
        &["default", ""],
        Rules {
            steps: &[
                Match(&[r"[\p{P}\$\+<=>\^~\|]+"]),
                Match(GPT_2),
                Match(&[DIGITS]),
                Match(&["[0-9][0-9][0-9]"]),
            ],
            ..CLEAN
        },
    ),
    (
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        Rules { steps: &[Match(LLAMA_3)], whole_words: true, add_bos: true, ..CLEAN },
    ),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], Rules { steps: &[Match(LLAMA_3)], ..CLEAN }),
    (
        &["minicpm5"],
        Rules {
            steps: &[
                Match(&[THREE_DIGITS]),
                Match(&[CONTRACTION, WORD, DIGITS, SYMBOLS, LINES, SPACES_BEFORE_SPACE, SPACES]),
            ],
            whole_words: true,
            ..CLEAN
        },
    ),
    (&["jais-2"], Rules { steps: &[MatchHalvingSpaces(LLAMA_3)], ..CLEAN }),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
        ],
        Rules { steps: &[Match(GPT_2)], ..CLEAN },
    ),
    (&["trillion", "granite-docling"], Rules { steps: &[Match(GPT_2)], ..PLAIN }),
    (
        &["starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        Rules { steps: &[Match(&[DIGIT]), Match(GPT_2)], ..CLEAN },
    ),
    (&["smollm", "command-r"], Rules { steps: &[Match(&[DIGIT]), Match(GPT_2)], ..PLAIN }),
    (
        &["falcon"],
        Rules {
            steps: &[Match(&[r"[\p{P}\$\+<=>\^~\|`]+"]), Match(GPT_2), Match(&["[0-9][0-9][0-9]"])],
            ..CLEAN
        },
    ),
    (&["stablelm2"], Rules { steps: &[Match(QWEN_2)], ..CLEAN }),
    (
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "grok-2", "solar-open"],
        Rules { steps: &[Match(QWEN_2)], ..PLAIN },
    ),
    (
        &["qwen35"],
        Rules {
            steps: &[Match(&[
                CONTRACTION,
                r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
                DIGIT,
                r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
                LINES,
                SPACES_BEFORE_SPACE,
                SPACES,
            ])],
            ..PLAIN
        },
    ),
    (
        &["ufakzeka"],
        Rules { steps: &[Match(&[WORD, DIGIT, SYMBOLS, LINES, SPACES_BEFORE_SPACE, SPACES])], ..PLAIN },
    ),
    (&["laguna"], Rules { steps: &[Match(NOT_LINES), Match(QWEN_2)], ..PLAIN }),
    (
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        Rules {
            steps: &[Match(&[
                r"'(?i:[sdmt]|ll|ve|re)",
                WORD,
                DIGIT,
                SYMBOLS,
                r"\s*[\r\n]",
                SPACES_BEFORE_SPACE,
                SPACES,
            ])],
            ..PLAIN
        },
    ),
    (
        &["seed-coder"],
        Rules {
            steps: &[Match(&[
                CONTRACTION,
                WORD,
                DIGIT,
                r" ?[^\s\p{L}\p{N}\r\n]+",
                LINES,
                SPACES_BEFORE_SPACE,
                SPACES,
            ])],
            ..PLAIN
        },
    ),
    (
        &["exaone-moe"],
        Rules {
            steps: &[Match(&[
                CONTRACTION,
                r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                DIGIT,
                r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                r"\s*[\r\n]",
                SPACES_BEFORE_SPACE,
                SPACES,
            ])],
            ..CLEAN
        },
    ),
    (
        &["tekken"],
        Rules {
            steps: &[Match(&[CASED, DIGIT, SYMBOLS_SLASHES, LINES, SPACES_BEFORE_SPACE, SPACES])],
            whole_words: true,
            add_bos: true,
            ..PLAIN
        },
    ),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], Rules { steps: &[Match(GPT_4O)], ..PLAIN }),
    (&["granite-embed-multi-97m"], Rules { steps: &[Match(GPT_4O)], whole_words: true, ..PLAIN }),
    (&["tiny_aya", "cohere2moe"], Rules { steps: &[ThousandsOfWholeNumbers, Match(GPT_4O)], ..PLAIN }),
    (
        &["kimi-k2"],
        Rules {
            steps: &[Match(&[
                r"\p{Han}+",
                CASED_NOT_HAN,
                THREE_DIGITS,
                SYMBOLS,
                LINES,
                SPACES_BEFORE_SPACE,
                SPACES,
            ])],
            ..PLAIN
        },
    ),
    (
        &["youtu"],
        Rules {
            steps: &[
                Match(&["[가-힣ㄱ-ㆎ]+", "[！…“”‘’—：；，、-〿︰-﹏]+", "[ㄅ-ㄯ]+", HAN_AND_KANA]),
                Match(&[CASED_CONTRACTED, DIGIT, SYMBOLS_SLASHES, LINES, SPACES_BEFORE_SPACE, SPACES]),
            ],
            whole_words: true,
            ..PLAIN
        },
    ),
    (
        &["deepseek-llm"],
        Rules {
            steps: &[
                Match(&[r"[\r\n]"]),
                Match(&[DEEPSEEK_LETTERS]),
                Match(&[r"\s?[!-/:-~！-／：-～‘-‟　-。]+"]),
                Match(&[r"\s+\z"]),
                Match(&[HAN_AND_HANGUL]),
                Match(&[DIGITS]),
            ],
            ..PLAIN
        },
    ),
    (
        &["deepseek-coder"],
        Rules {
            steps: &[
                Match(&[r"[\r\n]"]),
                Match(&[r"\s?\p{L}+"]),
                Match(&[r"\s?\p{P}+"]),
                Match(&[HAN_AND_HANGUL]),
                Match(&[DIGIT]),
            ],
            ..PLAIN
        },
    ),
    (
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        Rules { steps: &[Match(&[THREE_DIGITS]), Match(&[HAN_AND_KANA]), Match(DEEPSEEK_3)], ..PLAIN },
    ),
    (
        &["spark2_5"],
        Rules {
            steps: &[
                Match(&[THREE_DIGITS]),
                Match(&[HAN_AND_KANA]),
                Match(&[
                    r"[!-/:-@\[-`{-~][A-Za-z]+",
                    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
                    r" ?[\p{P}\p{S}]+",
                    r"[\r\n]",
                    SPACES_BEFORE_SPACE,
                    SPACES,
                ]),
                Match(&[DIGIT]),
            ],
            ..PLAIN
        },
    ),
    (
        &["afmoe"],
        Rules {
            steps: &[
                Thousands,
                Match(&[concat!(
                    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}",
                    r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}",
                    r"\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
                )]),
                Match(DEEPSEEK_3),
            ],
            ..PLAIN
        },
    ),
    (&["superbpe"], Rules { steps: &[Match(&[DIGITS]), BeforeThousands], ..PLAIN }),
    (&["bloom", "gpt3-finnish"], Rules { steps: &[Match(&[BLOOM])], ..CLEAN }),
    (&["poro-chat"], Rules { steps: &[Match(&[BLOOM])], ..PLAIN }),
    (&["viking"], Rules { steps: &[Match(&[BLOOM]), Match(&[DIGIT])], ..PLAIN }),
    (
        &["chameleon"],
        Rules {
            steps: &[
                Match(&["<sentinel:[0-9]+>"]),
                Match(&["IMGIMG[A-I]{1,4}Z"]),
                Match(&[r"[\t\n]", "    ", "  "]),
                Match(&[DIGIT]),
                Match(&[r"[\p{P}!-/:-@\[-`{-~]"]),
                Match(GPT_2),
            ],
            add_bos: true,
            ..PLAIN
        },
    ),
    (
        &["gemma4", "granite-embed-multi-311m"],
        Rules { steps: &[Match(NOT_LINES)], add_bos: true, spelling: Spelling::Spaced, ..CLEAN },
    ),
    (&["sarvam-moe"], Rules { steps: &[Match(NOT_LINES)], spelling: Spelling::Spaced, ..PLAIN }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::pretokenize::PreTokenizer;
    use serde_json::Value;

    #[test]
    fn no_name_stands_twice_and_unknown_names_have_no_rules() {
        let mut names: Vec<_> = TABLE.iter().flat_map(|(names, _)| *names).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(rules("no-such").is_none());
    }

    /// Lengths of words, in characters, by Hugging Face's tokenizers with the expressions of the models' tokenizer.json.
    #[test]
    fn words_equal_the_reference() {
        let data: Value =
            serde_json::from_str(include_str!("../../tests/data/tokenizer/words.json")).unwrap();
        let texts = data["texts"].as_array().unwrap();
        let mut tested = Vec::new();
        let mut failures = Vec::new();
        for (name, words) in data["words"].as_object().unwrap() {
            let rules = rules(name).unwrap();
            tested.push(format!("{:?}", rules.steps));
            let pre_tokenizer = PreTokenizer::new(rules.steps);
            for (text, lengths) in texts.iter().zip(words.as_array().unwrap()) {
                let text = text.as_str().unwrap();
                let mut expected = Vec::new();
                let mut letters = text.chars();
                for length in lengths.as_array().unwrap() {
                    expected
                        .push(letters.by_ref().take(length.as_u64().unwrap() as usize).collect::<String>());
                }
                let mut got = Vec::new();
                pre_tokenizer.split(text, &mut |word| got.push(word.to_owned()));
                if got != expected {
                    failures.push(format!("{name} {text:?}\n  got  {got:?}\n  want {expected:?}"));
                }
            }
        }
        assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
        for (names, rules) in TABLE {
            assert!(tested.contains(&format!("{:?}", rules.steps)), "{names:?} has no reference");
        }
    }
}
