"""What `cargo xtask bench-peers` asks of llama.cpp: versions, quantized models, and speed. Prints JSON.

    python peer_llama_cpp.py describe
    python peer_llama_cpp.py quantize --model IN.gguf --format Q4_K_M --out OUT.gguf
    python peer_llama_cpp.py bench --model F.gguf --prompt 512 --gen 128 --threads 2
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


def bench(args):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        sys.exit(f"cannot load {args.model}")

    params = llama_cpp.llama_context_default_params()
    params.n_ctx = max(args.prompt, args.gen)
    params.n_batch = args.prompt
    params.n_ubatch = min(args.prompt, 512)
    params.n_threads = params.n_threads_batch = args.threads
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F16
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit("cannot make a context")

    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rng = random.Random(0)
    tokens = [rng.randrange(vocab) for _ in range(max(args.prompt, args.gen))]
    memory = llama_cpp.llama_get_memory(context)

    def run(batch, steps):
        """Decodes `steps` batches from an empty KV cache on; returns tokens per second."""
        arrays = [(llama_cpp.llama_token * batch)(*tokens[i * batch : (i + 1) * batch]) for i in range(steps)]
        llama_cpp.llama_memory_clear(memory, True)
        start = time.perf_counter()
        for array in arrays:
            status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, batch))
            if status != 0:
                sys.exit(f"llama_decode: {status}")
            llama_cpp.llama_synchronize(context)
        return batch * steps / (time.perf_counter() - start)

    def result(test, batch, steps):
        speed = run(batch, steps)
        return {
            "test": test,
            "tokens": batch * steps,
            "depth": 0,
            "batch": 1,
            "threads": args.threads,
            "tokens_per_second": {"median": speed, "min": speed, "max": speed},
        }

    run(args.prompt, 1)  # warm-up
    run(1, min(args.gen, 4))
    return {"results": [result("prefill", args.prompt, 1), result("decode", 1, args.gen)]}


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
    command.add_argument("--prompt", type=int, default=512)
    command.add_argument("--gen", type=int, default=128)
    command.add_argument("--threads", type=int, default=1)

    args = parser.parse_args()
    llama_cpp.llama_log_set(log_errors_only, None)
    llama_cpp.llama_backend_init()
    json.dump(args.run(args), sys.stdout)
    print()


main()
