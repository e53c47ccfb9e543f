"""What `cargo xtask bench-embed` asks of other engines: their versions, and their speed with MiniLM. Prints JSON.

    python peer_embed.py describe
    python peer_embed.py export --model FOLDER --out model.onnx
    python peer_embed.py bench --engine torch|onnx|llama.cpp --model M --tokens 16,64 --batch 1,32 --threads 2

FOLDER is a model in the layout of Hugging Face. torch is measured as sentence-transformers calls it, with tokens that
are given; so are the others: none of them is timed while it cuts text into tokens.
"""

import argparse
import json
import os
import random
import sys
import time


def describe(_args):
    import llama_cpp
    import onnxruntime
    import sentence_transformers
    import torch

    return {
        "torch": torch.__version__,
        "sentence-transformers": sentence_transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
        "llama-cpp-python": llama_cpp.__version__,
    }


def export(args):
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        """The model, the mean over its tokens, and the length 1: all that the others do as well."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    model = Pooled(AutoModel.from_pretrained(args.model, attn_implementation="eager").float().eval())
    ids = torch.ones((2, 8), dtype=torch.long)
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")}
    torch.onnx.export(
        model, (ids, ids), args.out, input_names=list(axes), output_names=["embedding"],
        dynamic_axes=axes | {"embedding": {0: "batch"}}, opset_version=17, dynamo=False,
    )
    return {"bytes": os.path.getsize(args.out)}


def torch_engine(args):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    model = SentenceTransformer(args.model, device="cpu")

    def prepare(texts):
        ids = torch.tensor(texts)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}

    def embed(features):
        with torch.inference_mode():
            out = model.forward(dict(features))["sentence_embedding"]
            return torch.nn.functional.normalize(out, dim=-1).numpy()

    return prepare, embed


def onnx_engine(args):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])

    def prepare(texts):
        ids = np.array(texts, dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return prepare, lambda feeds: session.run(None, feeds)[0]


def llama_engine(args):
    import llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        sys.exit(f"cannot load {args.model}")
    params = llama_cpp.llama_context_default_params()
    most = max(args.tokens) * max(args.batch)
    params.n_ctx = params.n_batch = params.n_ubatch = most
    params.n_seq_max = max(args.batch)
    params.n_threads = params.n_threads_batch = args.threads
    params.embeddings = True
    params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit("cannot make a context")

    def prepare(texts):
        batch = llama_cpp.llama_batch_init(len(texts) * len(texts[0]), 0, 1)
        for sequence, text in enumerate(texts):
            for position, token in enumerate(text):
                i = batch.n_tokens
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                batch.n_tokens += 1
        return batch, len(texts)

    def embed(prepared):
        batch, count = prepared
        memory = llama_cpp.llama_get_memory(context)
        if memory:
            llama_cpp.llama_memory_clear(memory, True)
        if llama_cpp.llama_encode(context, batch) != 0:
            sys.exit("llama_encode failed")
        size = llama_cpp.llama_model_n_embd(model)
        return [llama_cpp.llama_get_embeddings_seq(context, i)[:size] for i in range(count)]

    return prepare, embed


ENGINES = {"torch": torch_engine, "onnx": onnx_engine, "llama.cpp": llama_engine}


def bench(args):
    prepare, embed = ENGINES[args.engine](args)
    rng = random.Random(0)
    results = []
    for tokens in args.tokens:
        for count in args.batch:
            # Any tokens but the special ones at the start of the vocabulary.
            batch = prepare([[rng.randrange(1000, 30000) for _ in range(tokens)] for _ in range(count)])

            def run():
                start, done = time.perf_counter(), 0
                while done == 0 or time.perf_counter() - start < 0.2:
                    embed(batch)
                    done += count * tokens
                return done / (time.perf_counter() - start)

            run()
            speed = run()
            results.append({
                "test": "embed", "tokens": tokens, "depth": 0, "batch": count, "threads": args.threads,
                "tokens_per_second": {"median": speed, "min": speed, "max": speed},
            })
    return {"results": results}


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, options in ((describe, ""), (export, "model out"), (bench, "model")):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        for option in options.split():
            command.add_argument(f"--{option}", required=True)
        if run is bench:
            command.add_argument("--engine", choices=ENGINES, required=True)
            command.add_argument("--tokens", type=numbers, default=[16, 64, 256])
            command.add_argument("--batch", type=numbers, default=[1, 32])
            command.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    json.dump(args.run(args), sys.stdout)
    print()


main()
