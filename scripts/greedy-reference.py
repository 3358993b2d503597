#!/usr/bin/env python3
"""Which of two greedy answers follows from a file's weights, and how near the call was.

    greedy-reference.py GGUF [--question TEXT] [--tokens N] [--prompt-out FILE] [--check URL] [--ours FILE]...

A Llama forward pass in NumPy (needs numpy and gguf), independent of llama.cpp and of the engine: weights decoded
to FP32, sums in FP32, the chat template's text and the tokens made here. Along each greedy path it prints for every
token what is chosen, the margin between the two best logits and the five best.

Paths:
  exact           FP32 all through: what the decoded weights say
  fp16-weights    the decoded weights rounded to FP16: what an FP16 engine holds
  q8-activations  before each matrix of the file that is quantised, activations are rounded to blocks of 32 numbers
                  of 8 bits with a scale, as ggml's CPU kernels for Q4_1 (Q8_1) and Q8_0 do

--check asks a server (its /v1/chat/completions, greedily) and says where its answer leaves each path. --prompt-out
writes the prompt as `gpu greedy --prompts` reads it; --ours reads that command's lines.
"""
import argparse
import json
import re
import urllib.request

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def say(**line):
    print(json.dumps(line, ensure_ascii=False), flush=True)


class Tokens:
    """Byte-level BPE as `tokenizer.ggml.pre = smollm` has it, for ASCII: enough for the prompts given here."""

    WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")

    def __init__(self, reader):
        field = lambda key: reader.fields[key].contents()
        self.pieces = field("tokenizer.ggml.tokens")
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        self.rank = {tuple(pair.split(" ")): i for i, pair in enumerate(field("tokenizer.ggml.merges"))}
        kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
        moved = [byte for byte in range(256) if byte not in kept]
        self.letter = {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(moved)}
        self.byte = {letter: byte for byte, letter in self.letter.items()}

    def word(self, text):
        parts = [self.letter[byte] for byte in text.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            best = min(pairs, key=lambda pair: self.rank.get(pair, 1 << 30))
            if best not in self.rank:
                break
            at = pairs.index(best)
            parts[at:at + 2] = ["".join(best)]
        return [self.ids[part] for part in parts]

    def encode(self, text):
        tokens = []
        for part in re.split(r"(<\|im_start\|>|<\|im_end\|>)", text):
            if part in self.ids and part.startswith("<|"):
                tokens.append(self.ids[part])
            else:
                tokens += [token for word in self.WORDS.findall(part) for token in self.word(word)]
        return tokens

    def decode(self, tokens):
        return bytes(self.byte.get(one, 63) for token in tokens for one in self.pieces[token]).decode(errors="replace")


class Network:
    def __init__(self, reader):
        field = lambda key: reader.fields[f"llama.{key}"].contents()
        self.layers, self.heads = field("block_count"), field("attention.head_count")
        self.kv, self.eps = field("attention.head_count_kv"), field("attention.layer_norm_rms_epsilon")
        self.theta = field("rope.freq_base")
        self.weights, self.quantised = {}, set()
        for tensor in reader.tensors:
            shape = tuple(int(size) for size in reversed(tensor.shape))
            self.weights[tensor.name] = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
            if tensor.tensor_type.name not in ("F32", "F16", "BF16"):
                self.quantised.add(tensor.name)
        self.half = False
        self.blocks = False

    def weight(self, name):
        values = self.weights[name]
        return values.astype(np.float16).astype(np.float32) if self.half else values

    def times(self, x, name):
        if self.blocks and name in self.quantised:
            blocks = x.reshape(-1, 32)
            scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
            inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
            x = (np.rint(blocks * inverse) * scale.astype(np.float16).astype(np.float32)).reshape(x.shape)
        return x @ self.weight(name).T

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weight(name)

    def turn(self, x, at):
        # The file has the rows of queries and keys in pairs (2i, 2i + 1), as ggml's plain rotation wants them.
        size = x.shape[-1]
        angle = at[:, None] * self.theta ** (-np.arange(0, size, 2) / size)
        cosine, sine = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).reshape(x.shape)

    def forward(self, tokens, past):
        """Logits of the last token; `past` holds keys and values of the tokens before and takes the new ones."""
        begun = past[0][0].shape[0] if past else 0
        at = np.arange(begun, begun + len(tokens))
        x = self.weight("token_embd.weight")[tokens]
        for layer in range(self.layers):
            blk = f"blk.{layer}."
            h = self.norm(x, blk + "attn_norm.weight")
            split = lambda name, count: self.times(h, f"{blk}{name}.weight").reshape(len(tokens), count, -1)
            q, k, v = self.turn(split("attn_q", self.heads), at), self.turn(split("attn_k", self.kv), at), split("attn_v", self.kv)
            if begun:
                k, v = np.concatenate([past[layer][0], k]), np.concatenate([past[layer][1], v])
            past[layer:layer + 1] = [(k, v)]
            group = self.heads // self.kv
            k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(q.shape[-1]))
            scores = np.where(np.arange(k.shape[0])[None, None] <= at[None, :, None], scores, -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
            x = x + self.times(mixed.reshape(len(tokens), -1).astype(np.float32), blk + "attn_output.weight")
            h = self.norm(x, blk + "ffn_norm.weight")
            gate = self.times(h, blk + "ffn_gate.weight")
            x = x + self.times(gate / (1 + np.exp(-gate)) * self.times(h, blk + "ffn_up.weight"), blk + "ffn_down.weight")
        head = "output.weight" if "output.weight" in self.weights else "token_embd.weight"
        return self.times(self.norm(x[-1:], "output_norm.weight"), head)[0]


def path(network, words, name, prompt, count, end=2):
    past, given, answer = [], prompt, []
    for step in range(count):
        logits = network.forward(given, past)
        order = np.argsort(-logits)[:5]
        say(path=name, step=step, token=int(order[0]), text=words.decode([order[0]]),
            margin=round(float(logits[order[0]] - logits[order[1]]), 4),
            best=[[words.decode([one]), round(float(logits[one]), 3)] for one in order])
        if order[0] == end:
            break
        answer.append(int(order[0]))
        given = [answer[-1]]
    say(path=name, answer=words.decode(answer), tokens=answer)
    return answer


def parted(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def asked(url, question, count):
    body = {"model": "smollm2", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": count}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        answer = json.load(response)
    return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("gguf")
    options.add_argument("--question", default="What is the capital of France?")
    options.add_argument("--tokens", type=int, default=16)
    options.add_argument("--no-system", action="store_true", help="without the template's default system prompt")
    options.add_argument("--prompt-out")
    options.add_argument("--check", action="append", default=[])
    options.add_argument("--ours", action="append", default=[])
    options = options.parse_args()
    reader = GGUFReader(options.gguf)
    words, network = Tokens(reader), Network(reader)
    system = "" if options.no_system else f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    prompt = words.encode(f"{system}<|im_start|>user\n{options.question}<|im_end|>\n<|im_start|>assistant\n")
    say(prompt=prompt, count=len(prompt), text=words.decode(prompt))
    if options.prompt_out:
        with open(options.prompt_out, "w", encoding="utf-8") as out:
            json.dump([{"prompt": prompt}], out)
    paths = {}
    for name, half, blocks in (("exact", False, False), ("fp16-weights", True, False), ("q8-activations", False, True)):
        network.half, network.blocks = half, blocks
        paths[name] = path(network, words, name, prompt, options.tokens)
    for url in options.check:
        text, count = asked(url, options.question, options.tokens)
        agrees = [name for name, tokens in paths.items() if words.decode(tokens).strip() == text.strip()]
        say(server=url, promptTokens=count, samePromptLength=count == len(prompt), answer=text, agreesWith=agrees)
    for file in options.ours:
        with open(file, encoding="utf-8") as lines:
            for line in map(json.loads, filter(str.strip, lines)):
                if line.get("step") == "greedy":
                    say(engine=file, answer=words.decode(line["tokens"]), margins=line["margins"][:8],
                        partsAt={name: parted(tokens, line["tokens"]) for name, tokens in paths.items()})


if __name__ == "__main__":
    main()
