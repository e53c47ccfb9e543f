//! Templates for files that have none. The sources are beside this file, written by what each family documents.

/// A template and the special tokens of the family it is for.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    pub(super) bos_token: Option<&'static str>,
    pub(super) eos_token: &'static str,
    pub(super) control_tokens: &'static [&'static str],
}

const SENTENCE: &[&str] = &["<s>", "</s>", "<unk>"];

pub(super) const ALL: [Builtin; 8] = [
    Builtin {
        name: "alpaca",
        source: include_str!("builtin/alpaca.jinja"),
        bos_token: Some("<s>"),
        eos_token: "</s>",
        control_tokens: SENTENCE,
    },
    Builtin {
        name: "chatml",
        source: include_str!("builtin/chatml.jinja"),
        bos_token: None,
        eos_token: "<|im_end|>",
        control_tokens: &["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    },
    Builtin {
        name: "gemma",
        source: include_str!("builtin/gemma.jinja"),
        bos_token: Some("<bos>"),
        eos_token: "<eos>",
        control_tokens: &["<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    },
    Builtin {
        name: "llama2",
        source: include_str!("builtin/llama2.jinja"),
        bos_token: Some("<s>"),
        eos_token: "</s>",
        control_tokens: SENTENCE,
    },
    Builtin {
        name: "llama3",
        source: include_str!("builtin/llama3.jinja"),
        bos_token: Some("<|begin_of_text|>"),
        eos_token: "<|eot_id|>",
        control_tokens: &[
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|python_tag|>",
        ],
    },
    Builtin {
        name: "mistral",
        source: include_str!("builtin/mistral.jinja"),
        bos_token: Some("<s>"),
        eos_token: "</s>",
        control_tokens: &["<s>", "</s>", "<unk>", "[INST]", "[/INST]"],
    },
    Builtin {
        name: "phi3",
        source: include_str!("builtin/phi3.jinja"),
        bos_token: Some("<s>"),
        eos_token: "<|end|>",
        control_tokens: &[
            "<s>",
            "</s>",
            "<unk>",
            "<|endoftext|>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|end|>",
        ],
    },
    Builtin {
        name: "vicuna",
        source: include_str!("builtin/vicuna.jinja"),
        bos_token: Some("<s>"),
        eos_token: "</s>",
        control_tokens: SENTENCE,
    },
];
