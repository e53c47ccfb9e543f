#!/usr/bin/env python3
"""Makes the tiny models of this folder and their logits: random weights, another implementation's answers.

usage: make.py [NAME ...]

Needs torch and transformers (models, reference logits in float32), llama.cpp's source tree in $LLAMA_SRC (its
converter, so that names and layouts are those of files in circulation), and llama-cpp-python, which loads every file
too: it is the reference where transformers lacks an architecture, else a second opinion that is printed.

Each case is NAME.gguf, NAME.json (`ids`, `greedy_16`) and NAME.logits.f32, `[ids, vocab]`. Weights are rounded to
16-bit floats before the reference sees them, so the files hold what it used.
"""
import json
import logging
import os
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    ArceeConfig, BloomConfig, Cohere2Config, CohereConfig, Ernie4_5Config, FalconConfig, Gemma2Config, Gemma3TextConfig,
    GemmaConfig, Glm4Config, GPT2Config,
    GPTBigCodeConfig, GPTJConfig, GPTNeoXConfig, GraniteConfig, GraniteMoeConfig, Lfm2Config, Lfm2MoeConfig, LlamaConfig, MistralConfig, MixtralConfig,
    MptConfig, NemotronConfig, Olmo2Config, Olmo3Config, OlmoeConfig, Phi3Config, PhiConfig, Qwen2Config, Qwen2MoeConfig, Qwen3Config,
    Qwen3MoeConfig, SeedOssConfig, SmolLM3Config, StableLmConfig, Starcoder2Config,
)

sys.path[:0] = [os.environ["LLAMA_SRC"], os.environ["LLAMA_SRC"] + "/gguf-py"]
import conversion  # noqa: E402
import gguf  # noqa: E402
import llama_cpp  # noqa: E402
from conversion.base import ModelBase, ModelType, get_model_architecture  # noqa: E402

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

HERE = Path(__file__).resolve().parent
VOCAB = 64
IDS = [int(i) for i in np.random.default_rng(5).integers(0, VOCAB - 2, 20)]
IDS[5] = IDS[4]
IDS[12:15] = IDS[1:4]


def add_vocabulary(writer):
    """The first printable characters as tokens of a GPT-2 vocabulary, and two control tokens."""
    characters = [chr(33 + i) for i in range(VOCAB - 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(characters + ["<s>", "</s>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * (VOCAB - 2) + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["! \""])
    writer.add_bos_token_id(VOCAB - 2)
    writer.add_eos_token_id(VOCAB - 1)
    writer.add_add_bos_token(False)


def random_values(shape, rng, name):
    """Values that make attention uneven and every bias and norm matter, in 16-bit floats."""
    x = torch.randn(shape, generator=rng)
    if len(shape) == 1:
        x = 0.25 * x + (1.0 if "bias" not in name and ("norm" in name or "ln" in name) else 0.0)
    elif "emb" in name or "wte" in name or "wpe" in name:
        x = 0.7 * x
    else:
        x = x * 1.4 / shape[-1] ** 0.5
    return x.half().float()


def randomize(model, seed):
    rng = torch.Generator().manual_seed(seed)
    # Gemma and Nemotron add one to the weights of norms.
    plus_one = model.config.model_type.startswith(("gemma", "nemotron"))
    seen = set()
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.data_ptr() in seen:
                continue
            seen.add(p.data_ptr())
            p.copy_(random_values(p.shape, rng, name.lower()))
            if plus_one and p.ndim == 1 and "bias" not in name:
                p.sub_(1.0)
        for name, b in model.named_buffers():
            if "expert_bias" in name:
                b.copy_(0.1 * torch.randn(b.shape, generator=rng))


def convert(model, path, patch):
    """Writes a model with llama.cpp's converter, but with our vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        weights = dict(model.state_dict())
        # StableLM: a norm for each head becomes one tensor.
        for norms in {name.rpartition("norms.")[0] for name in weights if ".norms." in name}:
            heads = sorted(name for name in weights if name.startswith(norms))
            weights[norms + "weight"] = torch.stack([weights.pop(name) for name in heads])
        model.save_pretrained(folder, state_dict=weights)
        config = json.load(open(folder + "/config.json"))
        config.setdefault("architectures", [type(model).__name__])
        json.dump(config | patch, open(folder + "/config.json", "w"))
        vocabulary = {"model": {"vocab": {str(i): i for i in range(VOCAB)}}, "added_tokens": []}
        json.dump(vocabulary, open(folder + "/tokenizer.json", "w"))
        hparams = ModelBase.load_hparams(Path(folder), False)
        base = conversion.get_model_class(get_model_architecture(hparams, ModelType.TEXT))

        class Tiny(base):
            model_arch = base.model_arch

            def set_gguf_parameters(self):
                if "firecrest_arch" in patch:
                    self.gguf_writer.arch = patch["firecrest_arch"]
                    self.gguf_writer.add_architecture()
                self.hparams.update(patch)
                super().set_gguf_parameters()

            def set_vocab(self):
                add_vocabulary(self.gguf_writer)
                for key, value in patch.get("firecrest_keys", {}).items():
                    self.gguf_writer.add_uint32(key, value)

        Tiny.__name__ = base.__name__
        with torch.inference_mode():
            Tiny(Path(folder), gguf.LlamaFileType.MOSTLY_F16, path, eager=True, model_name="tiny").write()


def second_relu(model):
    """Makes a LLaMA with ReLU a Bamboo, which transformers has no class for: ReLU(gate) * ReLU(up)."""
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(torch.relu(mlp.gate_proj(x)) * torch.relu(mlp.up_proj(x)))


def write_gptj(model, path, _patch):
    """GPT-J, which llama.cpp's converter does not know, by the names in gguf-py."""
    config = model.config
    w = gguf.GGUFWriter(str(path), "gptj")
    w.add_block_count(config.n_layer)
    w.add_context_length(config.n_positions)
    w.add_embedding_length(config.n_embd)
    w.add_feed_forward_length(4 * config.n_embd)
    w.add_head_count(config.n_head)
    w.add_layer_norm_eps(config.layer_norm_epsilon)
    w.add_rope_dimension_count(config.rotary_dim)
    add_vocabulary(w)
    names = {
        "transformer.wte": "token_embd", "transformer.ln_f": "output_norm", "lm_head": "output", "ln_1": "attn_norm",
        "attn.q_proj": "attn_q", "attn.k_proj": "attn_k", "attn.v_proj": "attn_v", "attn.out_proj": "attn_output",
        "mlp.fc_in": "ffn_up", "mlp.fc_out": "ffn_down",
    }
    for name, p in model.named_parameters():
        layer, _, part = name.removeprefix("transformer.h.").partition(".")
        prefix, name = (f"blk.{layer}.", part) if name.startswith("transformer.h.") else ("", name)
        name, kind = name.rsplit(".", 1)
        w.add_tensor(f"{prefix}{names[name]}.{kind}", p.detach().numpy().astype("f4" if p.ndim == 1 else "f2"))
    finish(w)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_random(path, architecture, seed, keys, tensors):
    """A file of random weights that only llama.cpp can tell the logits of. It would round activations to 16 bits with
    16-bit weights, so these are F32."""
    w = gguf.GGUFWriter(str(path), architecture)
    keys(w)
    add_vocabulary(w)
    rng = torch.Generator().manual_seed(seed)
    for name, shape in tensors.items():
        w.add_tensor(name, random_values(shape, rng, name).numpy())
    finish(w)


def openelm(path, seed):
    heads, kv_heads, hidden = [2, 4], [1, 2], [32, 48]

    def keys(w):
        w.add_block_count(2); w.add_context_length(256); w.add_embedding_length(32)
        w.add_feed_forward_length(hidden); w.add_head_count(heads); w.add_head_count_kv(kv_heads)
        w.add_rope_freq_base(10000.0); w.add_layer_norm_rms_eps(1e-6); w.add_rope_dimension_count(16)
        w.add_key_length(16); w.add_value_length(16)

    t = {"token_embd.weight": (VOCAB, 32), "output_norm.weight": (32,)}
    for i in range(2):
        t |= {f"blk.{i}.{n}.weight": s for n, s in {
            "attn_norm": (32,), "attn_qkv": ((heads[i] + 2 * kv_heads[i]) * 16, 32), "attn_q_norm": (16,),
            "attn_k_norm": (16,), "attn_output": (32, heads[i] * 16), "ffn_norm": (32,), "ffn_gate": (hidden[i], 32),
            "ffn_up": (hidden[i], 32), "ffn_down": (32, hidden[i])}.items()}
    write_random(path, "openelm", seed, keys, t)


def smallthinker(path, seed):
    """With a window larger than the text, as llama.cpp knows but one; layer 0 has none, and no rotary embedding."""
    def keys(w):
        w.add_block_count(2); w.add_context_length(8192); w.add_embedding_length(32); w.add_head_count(2)
        w.add_head_count_kv(1); w.add_key_length(16); w.add_value_length(16); w.add_layer_norm_rms_eps(1e-6)
        w.add_rope_freq_base(1e6); w.add_feed_forward_length(16); w.add_expert_feed_forward_length(16)
        w.add_expert_count(4); w.add_expert_used_count(2); w.add_sliding_window(4096)
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)

    t = {"token_embd.weight": (VOCAB, 32), "output_norm.weight": (32,)}
    for i in range(2):
        t |= {f"blk.{i}.{n}.weight": s for n, s in {
            "attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
            "ffn_norm": (32,), "ffn_gate_inp": (4, 32), "ffn_gate_exps": (4, 16, 32), "ffn_up_exps": (4, 16, 32),
            "ffn_down_exps": (4, 32, 16)}.items()}
    write_random(path, "smallthinker", seed, keys, t)


def plain(architecture):
    """Of an architecture like LLaMA."""
    def keys(w):
        w.add_block_count(2); w.add_context_length(256); w.add_embedding_length(32); w.add_feed_forward_length(48)
        w.add_head_count(4); w.add_head_count_kv(2); w.add_layer_norm_rms_eps(1e-5); w.add_rope_freq_base(1e6)
        w.add_rope_dimension_count(8)

    t = {"token_embd.weight": (VOCAB, 32), "output_norm.weight": (32,), "output.weight": (VOCAB, 32)}
    for i in range(2):
        t |= {f"blk.{i}.{n}.weight": s for n, s in {
            "attn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
            "ffn_norm": (32,), "ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48)}.items()}
    return lambda path, seed: write_random(path, architecture, seed, keys, t)


def qwen(path, seed):
    def keys(w):
        w.add_block_count(2); w.add_context_length(256); w.add_embedding_length(32); w.add_feed_forward_length(64)
        w.add_head_count(4); w.add_layer_norm_rms_eps(1e-6); w.add_rope_freq_base(10000.0); w.add_rope_dimension_count(8)

    t = {"token_embd.weight": (VOCAB, 32), "output_norm.weight": (32,), "output.weight": (VOCAB, 32)}
    for i in range(2):
        t |= {f"blk.{i}.{n}": s for n, s in {
            "attn_norm.weight": (32,), "attn_qkv.weight": (96, 32), "attn_qkv.bias": (96,), "attn_output.weight": (32, 32),
            "ffn_norm.weight": (32,), "ffn_gate.weight": (32, 32), "ffn_up.weight": (32, 32), "ffn_down.weight": (32, 32)}.items()}
    write_random(path, "qwen", seed, keys, t)


BASE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, bos_token_id=62, eos_token_id=63, pad_token_id=None,
            tie_word_embeddings=True)
MHA = BASE | {"num_key_value_heads": 4}


def rope(theta=10000.0, kind="default", **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1)
SHORT = [1.0 + 0.05 * i for i in range(4)]
LONG = [1.0 + 0.5 * i for i in range(4)]

# Of transformers: a configuration, and what the converter needs to be told besides.
CASES = {
    "arcee": (lambda: ArceeConfig(**BASE, rope_parameters=rope()), {}),
    "bamboo": (lambda: LlamaConfig(**BASE, hidden_act="relu", rope_parameters=rope()), {"firecrest_arch": "bamboo"}),
    "bloom": (lambda: BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, bos_token_id=62, eos_token_id=63), {}),
    "bloom-6-heads": (lambda: BloomConfig(vocab_size=VOCAB, hidden_size=24, n_layer=2, n_head=6, bos_token_id=62, eos_token_id=63), {}),
    "cohere2": (lambda: Cohere2Config(**BASE | {"num_hidden_layers": 4, "intermediate_size": 16}, sliding_window=8, rope_parameters=rope(), logit_scale=0.25), {"rotary_pct": 1.0}),
    "command-r": (lambda: CohereConfig(**BASE, rope_parameters=rope(), logit_scale=0.25), {"model_max_length": 256}),
    "ernie4_5": (lambda: Ernie4_5Config(**BASE, head_dim=8, rope_parameters=rope(500000.0)), {}),
    "falcon-7b": (lambda: FalconConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=True,
                                       parallel_attn=True, bias=False, alibi=False, new_decoder_architecture=False, rope_parameters=rope()), {"num_kv_heads": 1}),
    "falcon-40b": (lambda: FalconConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2,
                                        parallel_attn=True, bias=False, alibi=False, new_decoder_architecture=True, rope_parameters=rope()), {}),
    "gemma": (lambda: GemmaConfig(**BASE, head_dim=16, hidden_activation="gelu_pytorch_tanh", rope_parameters=rope()), {}),
    "gemma2": (lambda: Gemma2Config(**BASE, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, attn_logit_softcapping=2.0,
                                    final_logit_softcapping=3.0, hidden_activation="gelu_pytorch_tanh", rope_parameters=rope()), {}),
    "gemma3": (lambda: Gemma3TextConfig(**BASE | {"num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16},
                                        head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
                                        rope_parameters={"full_attention": rope(1e6, "linear", factor=8.0), "sliding_attention": rope(10000.0)}), {}),
    "glm4": (lambda: Glm4Config(**BASE | {"tie_word_embeddings": False}, head_dim=8, attention_bias=True, rope_parameters=rope(partial_rotary_factor=0.5)), {}),
    "gpt2": (lambda: GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=62, eos_token_id=63), {"n_ctx": 64}),
    "gptj": (lambda: GPTJConfig(vocab_size=VOCAB, n_positions=256, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, bos_token_id=62, eos_token_id=63,
                                tie_word_embeddings=False), {}),
    "gptneox": (lambda: GPTNeoXConfig(**BASE | {"tie_word_embeddings": False}, use_parallel_residual=True, hidden_act="gelu",
                                      rope_parameters=rope(partial_rotary_factor=0.5)), {"rotary_pct": 0.5}),
    "gptneox-sequential": (lambda: GPTNeoXConfig(**BASE | {"tie_word_embeddings": False}, use_parallel_residual=False, hidden_act="gelu",
                                                 rope_parameters=rope(partial_rotary_factor=0.25)), {"rotary_pct": 0.25}),
    "granite": (lambda: GraniteConfig(**BASE, embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.2,
                                      rope_parameters=rope()), {}),
    "granitemoe": (lambda: GraniteMoeConfig(**BASE | {"intermediate_size": 16}, embedding_multiplier=3.0, logits_scaling=2.0,
                                            residual_multiplier=0.5, attention_multiplier=0.2, num_local_experts=4, num_experts_per_tok=2,
                                            rope_parameters=rope()), {}),
    "lfm2": (lambda: Lfm2Config(**BASE | {"num_hidden_layers": 3}, layer_types=["conv", "full_attention", "conv"], conv_L_cache=3,
                                block_auto_adjust_ff_dim=False, rope_parameters=rope(1e6)), {}),
    "lfm2moe": (lambda: Lfm2MoeConfig(**BASE | {"num_hidden_layers": 2}, layer_types=["conv", "full_attention"], conv_L_cache=3, num_dense_layers=1,
                                      moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, use_expert_bias=True, norm_topk_prob=True,
                                      rope_parameters=rope(1e6)), {}),
    "llama": (lambda: LlamaConfig(**MHA | {"tie_word_embeddings": False}, rope_parameters=rope()), {}),
    "llama-bias": (lambda: LlamaConfig(**BASE, head_dim=12, attention_bias=True, mlp_bias=True, rope_parameters=rope()), {}),
    "llama-linear": (lambda: LlamaConfig(**BASE, rope_parameters=rope(10000.0, "linear", factor=4.0)), {}),
    "llama3": (lambda: LlamaConfig(**BASE, rope_parameters=rope(500000.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                                original_max_position_embeddings=64)), {}),
    "mistral": (lambda: MistralConfig(**BASE, sliding_window=8, rope_parameters=rope()), {"firecrest_keys": {"llama.attention.sliding_window": 8}}),
    "mixtral": (lambda: MixtralConfig(**BASE | {"intermediate_size": 32}, num_local_experts=4, num_experts_per_tok=2, sliding_window=None, rope_parameters=rope(1e6)), {}),
    "mpt": (lambda: MptConfig(vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=4, max_seq_len=64, attn_config={"clip_qkv": 1.0}), {"architectures": ["MPTForCausalLM"]}),
    "nemotron": (lambda: NemotronConfig(**BASE | {"tie_word_embeddings": False}, head_dim=8, hidden_act="relu2", rope_parameters=rope(partial_rotary_factor=0.5)), {}),
    "olmo2": (lambda: Olmo2Config(**BASE | {"tie_word_embeddings": False}, rope_parameters=rope()), {}),
    "olmo3": (lambda: Olmo3Config(**BASE | {"tie_word_embeddings": False, "num_hidden_layers": 4, "intermediate_size": 16}, sliding_window=8,
                                  rope_parameters=rope(10000.0)), {}),
    "olmoe": (lambda: OlmoeConfig(**MHA | {"intermediate_size": 16, "tie_word_embeddings": False}, num_experts=4, num_experts_per_tok=2,
                                  norm_topk_prob=False, rope_parameters=rope()), {}),
    "phi2": (lambda: PhiConfig(**MHA | {"intermediate_size": 128, "tie_word_embeddings": False}, hidden_act="gelu_new", rope_parameters=rope(partial_rotary_factor=0.5)), {}),
    "phi3": (lambda: Phi3Config(**BASE, sliding_window=8, original_max_position_embeddings=256, rope_parameters=rope()), {}),
    "phi3-long": (lambda: Phi3Config(**BASE | {"max_position_embeddings": 128}, sliding_window=None, original_max_position_embeddings=16,
                                     rope_parameters=rope(kind="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=16)), {}),
    "phi3-short": (lambda: Phi3Config(**BASE | {"max_position_embeddings": 512}, sliding_window=None, original_max_position_embeddings=256,
                                      rope_parameters=rope(kind="longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=256)), {}),
    "qwen2": (lambda: Qwen2Config(**BASE, use_sliding_window=False, rope_parameters=rope(1e6)), {}),
    "qwen2-yarn": (lambda: Qwen2Config(**BASE, use_sliding_window=False, rope_parameters=rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=64)), {}),
    "qwen2moe": (lambda: Qwen2MoeConfig(**BASE | EXPERTS | {"tie_word_embeddings": False}, shared_expert_intermediate_size=24, norm_topk_prob=False, use_sliding_window=False,
                                        rope_parameters=rope(1e6)), {}),
    "qwen3": (lambda: Qwen3Config(**BASE, head_dim=16, use_sliding_window=False, rope_parameters=rope(1e6)), {}),
    "qwen3moe": (lambda: Qwen3MoeConfig(**BASE | EXPERTS, head_dim=16, norm_topk_prob=True, use_sliding_window=False, rope_parameters=rope(1e6)), {}),
    "seed_oss": (lambda: SeedOssConfig(**BASE | {"tie_word_embeddings": False}, head_dim=16, attention_bias=True, rope_parameters=rope(1e7)), {}),
    "smollm3": (lambda: SmolLM3Config(**BASE | {"num_hidden_layers": 4, "intermediate_size": 24}, no_rope_layer_interval=4, use_sliding_window=False, rope_parameters=rope(1e6)), {}),
    "stablelm": (lambda: StableLmConfig(**BASE | {"tie_word_embeddings": False}, use_qkv_bias=True, rope_parameters=rope(partial_rotary_factor=0.25)), {}),
    "stablelm-12b": (lambda: StableLmConfig(**BASE | {"tie_word_embeddings": False}, use_parallel_residual=True, qk_layernorm=True,
                                            rope_parameters=rope(partial_rotary_factor=0.5)), {}),
    "starcoder": (lambda: GPTBigCodeConfig(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=62, eos_token_id=63), {}),
    "starcoder2": (lambda: Starcoder2Config(**BASE, sliding_window=None, use_bias=True, rope_parameters=rope()), {}),
}
# Of llama.cpp alone: what writes the file.
FILES = {"openelm": openelm, "smallthinker": smallthinker, "exaone": plain("exaone"), "internlm2": plain("internlm2"), "qwen": qwen}


def llama_logits(path):
    model = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, n_threads=1, logits_all=True, type_k=0, type_v=0, flash_attn=False,
                            verbose=False)

    def logits(ids):
        model.reset()
        model.eval(ids)
        return np.array(model.scores[:len(ids)], dtype="<f4")
    return logits


def make(name, seed):
    path = HERE / f"{name}.gguf"
    if name in FILES:
        FILES[name](path, seed)
        logits, by = llama_logits(path), f"llama.cpp (llama-cpp-python {llama_cpp.__version__}), F32 weights, F32 KV cache"
    else:
        config, patch = CASES[name]
        config = config()
        config._attn_implementation = config._experts_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        randomize(model, seed)
        if name == "bamboo":
            second_relu(model)
        (write_gptj if name == "gptj" else convert)(model, path, patch)

        @torch.no_grad()
        def logits(ids):
            return model(torch.tensor([ids]), use_cache=False).logits[0].numpy().astype("<f4")
        by = f"transformers {transformers.__version__}, float32, eager attention"
    want, ids = logits(IDS), list(IDS)
    for _ in range(16):
        ids.append(int(logits(ids)[-1].argmax()))
    (HERE / f"{name}.logits.f32").write_bytes(want.tobytes())
    case = {"by": by, "ids": IDS, "greedy_16": ids[len(IDS):]}
    (HERE / f"{name}.json").write_text(json.dumps(case) + "\n")
    try:
        other = "llama.cpp differs by %.1e" % np.abs(llama_logits(path)(IDS) - want).max()
    except Exception as error:  # llama.cpp lacks GPT-J, for one.
        other = f"llama.cpp: {error}"
    print(f"{name:20} {path.stat().st_size:6} bytes, standard deviation {want.std():.2f}, {other}", flush=True)


def main():
    for name in [*CASES, *FILES]:
        if not sys.argv[1:] or name in sys.argv[1:]:
            try:
                make(name, zlib.crc32(name.encode()))
            except Exception:
                logging.disable(logging.NOTSET)
                logging.exception(name)


main()
