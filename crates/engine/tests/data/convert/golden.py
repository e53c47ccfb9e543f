"""Tiny random models in the layout of Hugging Face, and what transformers computes with them in f32.

    pip install torch transformers safetensors
    python golden.py        # writes a folder for each model, beside this file

Each folder has config.json, model.safetensors, a tokenizer, and golden.json: `ids` with `states` (the last layer's, of
encoders), `scores` (of cross-encoders) or `logits` (of decoders, behind the last three tokens), and `texts` with their `ids`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

HERE = Path(__file__).resolve().parent
TEXTS = ["the cat sat on the mat", "A red hat!", "", "cats, hats and 1234 mats: naïve café"]
CORPUS = TEXTS + ["the cat and the hat", "a mat on the cat", "red cats sat", "hats and mats", "don't the cat's"]


def wordpiece():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=80, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unigram():
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=70, special_tokens=specials, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", unk_token="<unk>", mask_token="<mask>",
    )


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")


def byte_level(expression, bos=None):
    from tokenizers import Regex

    specials = ["<|endoftext|>", "<|begin|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=280, special_tokens=specials, initial_alphabet=alphabet)
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|endoftext|>")


def spaced():
    """SentencePiece's byte-pair encoding, as LLaMA 2 has it."""
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=290, special_tokens=specials + bytes_, max_token_length=12)
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def randomize(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                if "gemma" in type(model).__name__.lower():
                    offset = 0.0
                parameter.copy_(offset + 0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.15 * torch.randn_like(parameter))
    return model.eval()


def save(name, model, tokenizer, golden, modules=None):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for extra in ["generation_config.json"]:
        (folder / extra).unlink(missing_ok=True)
    if modules:
        (folder / "modules.json").write_text(
            json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
        )
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({modules: True}))
    (folder / "golden.json").write_text(json.dumps(golden))
    print(name)


def rounded(tensor):
    return [[round(float(x), 6) for x in row] for row in tensor]


def texts(tokenizer):
    return [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]


def encoder(name, model, tokenizer, seed, modules):
    randomize(model, seed)
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0]
    save(name, model, tokenizer, {"ids": ids, "states": rounded(states), "texts": texts(tokenizer)}, modules)


def decoder(name, model, tokenizer, seed):
    randomize(model, seed)
    ids = tokenizer(TEXTS[3])["input_ids"][:12]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    save(name, model, tokenizer, {"ids": ids, "logits": rounded(logits[-3:]), "texts": texts(tokenizer)})


def make(names):
    want = lambda name: not names or name in names
    words = wordpiece()
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40)
    bert = dict(small, vocab_size=len(words), max_position_embeddings=24)
    if want("bert"):
        encoder("bert", BertModel(BertConfig(**bert)), words, 1, "pooling_mode_mean_tokens")
    if want("cross-encoder"):
        model = randomize(BertForSequenceClassification(BertConfig(**bert, num_labels=1)), 2)
        documents = ["the cat sat on the mat", "hats and mats", "red!"]
        pairs = words(["red cats"] * 3, documents, padding=True, return_tensors="pt", return_token_type_ids=True)
        with torch.no_grad():
            scores = model(**pairs).logits[:, 0]
        golden = {"query": "red cats", "documents": documents, "scores": [float(x) for x in scores]}
        save("cross-encoder", model, words, golden)
    if want("nomic-bert"):
        from transformers import NomicBertConfig, NomicBertModel

        config = NomicBertConfig(**bert)
        encoder("nomic-bert", NomicBertModel(config), words, 3, "pooling_mode_mean_tokens")
    if want("xlm-roberta"):
        pieces = unigram()
        config = XLMRobertaConfig(
            **dict(small, vocab_size=len(pieces), max_position_embeddings=26, type_vocab_size=1, pad_token_id=1)
        )
        encoder("xlm-roberta", XLMRobertaModel(config), pieces, 4, "pooling_mode_cls_token")
    tiny = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    common = dict(tiny, max_position_embeddings=64, num_key_value_heads=1, pad_token_id=None, bos_token_id=1)
    if want("llama-3"):
        tokenizer = byte_level(LLAMA_3, "<|begin|>")
        rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
        config = LlamaConfig(**common, vocab_size=len(tokenizer), eos_token_id=0, rope_parameters=rope)
        decoder("llama-3", LlamaForCausalLM(config), tokenizer, 5)
    if want("llama-2"):
        tokenizer = spaced()
        config = LlamaConfig(**common, vocab_size=len(tokenizer), eos_token_id=2, tie_word_embeddings=True)
        decoder("llama-2", LlamaForCausalLM(config), tokenizer, 6)
    tokenizer = byte_level(QWEN_2)
    common = dict(common, vocab_size=len(tokenizer) + 4, eos_token_id=0, bos_token_id=0)
    for name, config, more in [
        ("qwen2", "Qwen2", {}),
        ("qwen3", "Qwen3", {"head_dim": 16}),
        ("phi3", "Phi3", {}),
        ("phi2", "Phi", {"num_key_value_heads": 2, "partial_rotary_factor": 0.5}),
        ("gemma", "Gemma", {"head_dim": 16}),
        ("gemma2", "Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16}),
        ("gemma3", "Gemma3Text",
         {"head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6, "sliding_window": 4}),
        ("stablelm", "StableLm", {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
        ("starcoder2", "Starcoder2", {"use_bias": True}),
        ("olmo2", "Olmo2", {}),
        ("nemotron", "Nemotron", {"partial_rotary_factor": 0.5, "head_dim": 8}),
        ("arcee", "Arcee", {}),
        ("smollm3", "SmolLM3", {"num_hidden_layers": 4}),
        ("granite", "Granite", {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5,
                                "attention_multiplier": 0.2}),
        ("gpt2", "GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
        ("gptj", "GPTJ", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 4,
                          "tie_word_embeddings": False}),
        ("lfm2", "Lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False,
                          "conv_L_cache": 3}),
    ]:
        if want(name):
            # GPT's classes keep names that they do not know, and published models have none of ours.
            given = {"vocab_size": common["vocab_size"], "bos_token_id": 0, "eos_token_id": 0} if "n_embd" in more else common
            config = getattr(transformers, f"{config}Config")(**{**given, **more})
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
            decoder(name, model, tokenizer, 7)


make(sys.argv[1:])
