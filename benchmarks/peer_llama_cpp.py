"""What `cargo xtask bench-peers` asks of llama.cpp: versions, quantized models, and speed. Prints JSON.

    python peer_llama_cpp.py describe
    python peer_llama_cpp.py quantize --model IN.gguf --format Q4_K_M --out OUT.gguf
    python peer_llama_cpp.py bench --model F.gguf --threads 2 --prompt 512
    python peer_llama_cpp.py bench --model F.gguf --threads 2 --gen 128 --depth 0,1024 --batch 1,4

`tokens` of a decode are those of each sequence, its speed is that of all sequences together.
"""

import argparse
import ctypes
import datetime
import json
import os
import platform
import random
import sys
import time

import llama_cpp


@llama_cpp.llama_log_callback
def log_errors_only(level, text, _user_data):
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        sys.stderr.write(text.decode(errors="replace"))


def describe(_args):
    ggml = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", library("ggml-base")))

    def text(name):
        function = getattr(ggml, name)
        function.restype = ctypes.c_char_p
        return function().decode()

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "llama_cpp_python": llama_cpp.__version__,
        "ggml": f"{text('ggml_version')} ({text('ggml_commit')})",
        "system_info": llama_cpp.llama_print_system_info().decode().strip(),
    }


def library(name):
    return {"win32": f"{name}.dll", "darwin": f"lib{name}.dylib"}.get(sys.platform, f"lib{name}.so")


def quantize(args):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{args.format}")
    params.allow_requantize = True
    status = llama_cpp.llama_model_quantize(args.model.encode(), args.out.encode(), ctypes.byref(params))
    if status != 0:
        sys.exit(f"llama_model_quantize: {status}")
    return {"bytes": os.path.getsize(args.out)}


class Sequences:
    """A model with caches for some sequences of random tokens."""

    def __init__(self, args, count, length):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(args.model.encode(), params)
        if not self.model:
            sys.exit(f"cannot load {args.model}")

        params = llama_cpp.llama_context_default_params()
        # Every sequence gets the same share of the cache.
        params.n_ctx = count * (length + 256)
        params.n_seq_max = count
        params.n_batch = max(args.prompt, 512)
        params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = args.threads
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F16
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("cannot make a context")
        self.memory = llama_cpp.llama_get_memory(self.context)
        vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        rng = random.Random(0)
        self.tokens = [rng.randrange(vocab) for _ in range(length)]

    def decode(self, batch):
        status = llama_cpp.llama_decode(self.context, batch)
        if status != 0:
            sys.exit(f"llama_decode: {status}")
        llama_cpp.llama_synchronize(self.context)

    def read(self, start, end):
        """Reads tokens into the first sequence, as one batch of which the last one's logits are made."""
        count = end - start
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i] = self.tokens[start + i]
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        begin = time.perf_counter()
        self.decode(batch)
        seconds = time.perf_counter() - begin
        llama_cpp.llama_batch_free(batch)
        return seconds

    def step(self, count, start, steps):
        """Gives each of the first `count` sequences `steps` more tokens, one at a time; returns the seconds."""
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        seconds = 0
        for i in range(start, start + steps):
            for sequence in range(count):
                batch.token[sequence] = self.tokens[(i + sequence) % len(self.tokens)]
                batch.pos[sequence] = i
                batch.n_seq_id[sequence] = 1
                batch.seq_id[sequence][0] = sequence
                batch.logits[sequence] = True
            begin = time.perf_counter()
            self.decode(batch)
            seconds += time.perf_counter() - begin
        llama_cpp.llama_batch_free(batch)
        return seconds

    def cut(self, sequence, length):
        """Forgets what is beyond so many tokens."""
        llama_cpp.llama_memory_seq_rm(self.memory, sequence, length, -1)


def bench(args):
    depths = sorted(args.depth)
    length = max(args.prompt, depths[-1] + max(args.gen, 1))
    sequences = Sequences(args, max(args.batch), length)
    results = []

    def result(test, tokens, depth, batch, seconds):
        speed = tokens * batch / seconds
        results.append(
            {
                "test": test,
                "tokens": tokens,
                "depth": depth,
                "batch": batch,
                "threads": args.threads,
                "tokens_per_second": {"median": speed, "min": speed, "max": speed},
            }
        )

    if args.prompt:
        sequences.read(0, args.prompt)  # warm-up
        sequences.cut(0, 0)
        result("prefill", args.prompt, 0, 1, sequences.read(0, args.prompt))
        sequences.cut(0, 0)

    there = 0
    for depth in depths if args.gen else []:
        for start in range(there, depth, 512):
            sequences.read(start, min(start + 512, depth))
        there = depth
        for batch in args.batch:
            for other in range(1, batch):
                llama_cpp.llama_memory_seq_cp(sequences.memory, 0, other, -1, -1)
            # Warm-up; what the other sequences begin with is copied by its first step.
            sequences.step(batch, depth, min(args.gen, 4))
            for sequence in range(batch):
                sequences.cut(sequence, depth)
            result("decode", args.gen, depth, batch, sequences.step(batch, depth, args.gen))
            for sequence in range(batch):
                sequences.cut(sequence, depth if sequence == 0 else 0)
    return {"results": results}


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("describe")
    command.set_defaults(run=describe)

    command = commands.add_parser("quantize")
    command.set_defaults(run=quantize)
    command.add_argument("--model", required=True)
    command.add_argument("--format", required=True)
    command.add_argument("--out", required=True)

    command = commands.add_parser("bench")
    command.set_defaults(run=bench)
    command.add_argument("--model", required=True)
    command.add_argument("--prompt", type=int, default=0)
    command.add_argument("--gen", type=int, default=0)
    command.add_argument("--depth", type=numbers, default=[0])
    command.add_argument("--batch", type=numbers, default=[1])
    command.add_argument("--threads", type=int, default=1)

    args = parser.parse_args()
    llama_cpp.llama_log_set(log_errors_only, None)
    llama_cpp.llama_backend_init()
    json.dump(args.run(args), sys.stdout)
    print()


main()
