#!/usr/bin/env python3
"""Cuts vocabularies down to what the reference texts need, so that tests can carry them.

usage: cut.py REFERENCE/tokenizer NAME=FILE.gguf ...

REFERENCE/tokenizer/NAME.json holds the ids that llama.cpp gives (for bert: Hugging Face's tokenizers). Of the vocabulary
stay the tokens among these ids, the tokens and merges that lead to them, bytes, and special tokens; ids are numbered
anew. Also trains a small Unigram vocabulary, whose reference is SentencePiece. Writes NAME.json beside this script.
"""
import base64
import io
import json
import sys
from pathlib import Path

import sentencepiece
from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2 as pb

HERE = Path(__file__).resolve().parent
BYTES = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
LETTERS = {chr(b) for b in BYTES} | {chr(256 + i) for i in range(256 - len(BYTES))}


def write(name, meta, cases):
    lines = lambda rows: ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows)
    keys = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in meta.items())
    (HERE / f"{name}.json").write_text(f'{{"meta": {{\n{keys}}},\n"cases": [\n{lines(cases)}]}}\n')


def text_of(detok):
    return detok["text"].encode() if "text" in detok else base64.b64decode(detok["b64"])


def merge_tree(text, join):
    """all results of joining the letters of text pair by pair, the pair of the lowest rank first"""
    parts, results = list(text), []
    while True:
        ranked = [(join(a, b), i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if join(a, b) is not None]
        if not ranked:
            return results
        i = min(ranked)[1]
        results.append((parts[i], parts[i + 1]))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def cut(reference, name, path):
    fields = {k: f.contents() for k, f in GGUFReader(path).fields.items() if k.startswith(("tokenizer.ggml.", "general."))}
    meta = {k: v for k, v in fields.items() if not isinstance(v, list) and k.split(".")[-1] in
            ("model", "pre", "name", "add_bos_token", "add_eos_token", "add_space_prefix") or k.endswith("_token_id")}
    meta.pop("general.name") if "phi" not in meta["general.name"].lower() else None
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    index = {t: i for i, t in enumerate(tokens)}
    ranks = {tuple(m.split(" ", 1)): i for i, m in enumerate(fields.get("tokenizer.ggml.merges", []))}
    scores = fields.get("tokenizer.ggml.scores")
    if scores:
        join = lambda a, b: -scores[index[a + b]] if a + b in index else None
    else:
        join = lambda a, b: ranks.get((a, b))

    cases = json.loads((reference / f"{name}.json").read_text())["cases"]
    bert = meta["tokenizer.ggml.model"] == "bert"
    used = {i for c in cases for k in ("plain", "special", "second_plain") for i in c.get(k, [])}
    used |= {v for k, v in meta.items() if k.endswith("_token_id")}
    used |= {i for i, t in enumerate(tokens) if t in LETTERS or kinds[i] in (2, 3, 4, 6) and not bert}
    merges = set()
    for i in list(used):
        if not bert and kinds[i] == 1:
            merges.update(merge_tree(tokens[i], join))
    used |= {index[t] for a, b in merges for t in (a, b, a + b) if t in index}
    ids = sorted(used)
    new = {old: i for i, old in enumerate(ids)}

    meta = {k: new[v] if k.endswith("_token_id") else v for k, v in meta.items()}
    if bert:
        meta["tokenizer.ggml.bos_token_id"] = new[101]
    meta["tokenizer.ggml.tokens"] = [tokens[i] for i in ids]
    meta["tokenizer.ggml.token_type"] = [kinds[i] for i in ids]
    if scores:
        meta["tokenizer.ggml.scores"] = [scores[i] for i in ids]
    if ranks:
        meta["tokenizer.ggml.merges"] = [" ".join(m) for m in sorted(merges, key=ranks.get)]
    rows = []
    for c in cases:
        row = {k: [new[i] for i in c[k]] for k in ("plain", "special")}
        for k in ("plain", "special"):
            if bert and "second_plain" in c:
                row[k] = [new[i] for i in c["second_plain"]] if k == "plain" else None
            elif text_of(c["detok_" + k]) != c["text"].encode():
                row["detok_" + k] = text_of(c["detok_" + k]).decode()
        rows.append({"text": c["text"]} | {k: v for k, v in row.items() if v is not None})
    write(name, meta, rows)


def unigram(reference):
    texts = json.loads((reference / "texts.json").read_text())
    model = io.BytesIO()
    rules = HERE / "rules.tsv"
    pairs = [("\ufb01", "fi"), ("\ufb02", "fl"), ("\u212b", "\u00c5"), ("A\u030a", "\u00c5"), ("e\u0301", "\u00e9"),
             ("\uff0c", ","), ("\uff01", "!"), ("\t", " "), ("\n", " "), ("\r\n", " "), ("\u3000", " "), ("\u200b", ""),
             ("\u00bd", "1/2"), ("\u2026", "...")]
    code = lambda s: " ".join(f"{ord(c):X}" for c in s)
    rules.write_text("".join(f"{code(a)}\t{code(b)}\n" for a, b in pairs))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(t.replace("\n", " ") for t in texts * 4 if t.isascii()), model_writer=model, vocab_size=400,
        model_type="unigram", normalization_rule_tsv=str(rules), pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        user_defined_symbols=["<extra_0>", "<extra_1>"], hard_vocab_limit=False, minloglevel=2)
    rules.unlink()
    proto = pb.ModelProto.FromString(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}
    meta = {"tokenizer.ggml.model": "t5", "tokenizer.ggml.add_space_prefix": True,
            "tokenizer.ggml.remove_extra_whitespaces": True,
            "tokenizer.ggml.tokens": [p.piece for p in proto.pieces],
            "tokenizer.ggml.token_type": [kinds[p.type] for p in proto.pieces],
            "tokenizer.ggml.scores": [p.score for p in proto.pieces],
            "tokenizer.ggml.precompiled_charsmap": list(proto.normalizer_spec.precompiled_charsmap)}
    # SentencePiece adds scores in single precision, which decides between splits of a repeated letter by chance.
    write("unigram", meta, [{"text": t, "plain": processor.encode(t)} for t in texts if t != "a" * 300])


def main():
    reference = Path(sys.argv[1])
    for argument in sys.argv[2:]:
        cut(reference, *argument.split("=", 1))
    unigram(reference)


main()
