#!/usr/bin/env python3
"""The references of scripts/gpu-proof.

  gpu-proof.py f32 GGUF OUT               a GGUF with the same tensors, decoded to F32 (needs gguf)
  gpu-proof.py sequences REFERENCE OUT    sequences for `gpu logits` from recorded continuations
  gpu-proof.py logits GGUF SEQUENCES ROWS NAME [PRECISION]
                                          rows of `gpu logits` against PyTorch in FP32 and FP16 (needs
                                          gguf, torch and a GPU)
  gpu-proof.py greedy REFERENCE LINES     continuations of `gpu greedy` against the recorded ones
  gpu-proof.py transformers GGUF          speed of transformers, plain and with CUDA graphs

Relative error: |out - reference| / |reference| over a row of logits, the largest of all rows.
"""
import json
import sys
import time
from pathlib import Path

import numpy as np

PROMPT = 32
STEPS = 8


def say(**line):
    print(json.dumps(line), flush=True)


def read(path):
    """Tensors as float32 arrays with the rows of queries and keys in Hugging Face's order, and facts."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    field = lambda key: reader.fields[key].contents() if key in reader.fields else None
    arch = field("general.architecture")
    facts = {
        "layers": field(f"{arch}.block_count"),
        "heads": field(f"{arch}.attention.head_count"),
        "kv": field(f"{arch}.attention.head_count_kv"),
        "hidden": field(f"{arch}.embedding_length"),
        "ffn": field(f"{arch}.feed_forward_length"),
        "eps": field(f"{arch}.attention.layer_norm_rms_epsilon"),
        "theta": field(f"{arch}.rope.freq_base") or 10000.0,
    }
    tensors = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        for name, heads in (("attn_q", facts["heads"]), ("attn_k", facts["kv"])):
            if arch == "llama" and f".{name}.weight" in tensor.name:
                rows = values.shape[0]
                values = values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)
        tensors[tensor.name] = values
    return tensors, facts


def f32(source, out):
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind, sub = field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=sub)
    writer.add_file_type(0)
    arrays = []
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        arrays.append(values.reshape(tuple(int(size) for size in reversed(tensor.shape))))
        writer.add_tensor(tensor.name, arrays[-1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sequences(reference, out):
    """Prompt and recorded continuation as one sequence, cut or repeated to one length."""
    recorded = json.loads(Path(reference).read_text())
    length = PROMPT + STEPS
    rows = [(one["prompt"] + one["tokens"] + one["prompt"])[:length] for one in recorded]
    rows = [row for row in rows if len(row) == length]
    Path(out).write_text(json.dumps({"prompt": PROMPT, "sequences": rows}))


def model(tensors, facts, dtype):
    """Hugging Face's own Llama with these weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    kwargs = dict(
        vocab_size=tensors["token_embd.weight"].shape[0], hidden_size=facts["hidden"],
        intermediate_size=facts["ffn"], num_hidden_layers=facts["layers"],
        num_attention_heads=facts["heads"], num_key_value_heads=facts["kv"], rms_norm_eps=facts["eps"],
        tie_word_embeddings="output.weight" not in tensors, max_position_embeddings=8192,
    )
    try:
        config = LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": facts["theta"]}, **kwargs)
    except TypeError:
        config = LlamaConfig(rope_theta=facts["theta"], **kwargs)
    # The library's own rounding of the attention's softmax, not that of a fused kernel.
    config._attn_implementation = "eager"
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.device("cuda"):
        net = LlamaForCausalLM(config).eval().to(dtype)
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"], "model.norm.weight": tensors["output_norm.weight"]}
    state["lm_head.weight"] = tensors.get("output.weight", tensors["token_embd.weight"])
    for layer in range(facts["layers"]):
        for ours, theirs in names.items():
            state[f"model.layers.{layer}.{theirs}.weight"] = tensors[f"blk.{layer}.{ours}.weight"]
    # As the engine has them: weights are FP16 in every precision of arithmetic.
    state = {name: torch.from_numpy(values).half().to(dtype) for name, values in state.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and all("rotary" in name for name in missing), (missing, unexpected)
    return net


def int8(values):
    """Per row, symmetric: what INT8 engines hold."""
    scale = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.rint(values / scale), -127, 127) * scale


def rows_of(net, given):
    import torch

    with torch.no_grad():
        for sequence in given["sequences"]:
            logits = net(torch.tensor([sequence], device="cuda")).logits[0].float()
            yield logits[given["prompt"] - 1:].cpu().numpy()


def logits(gguf, given, rows, name, precision="fp16"):
    import torch

    given = json.loads(Path(given).read_text())
    tensors, facts = read(gguf)
    vocabulary = tensors["token_embd.weight"].shape[0]
    steps = len(given["sequences"][0]) - given["prompt"] + 1
    ours = np.fromfile(rows, dtype="<f4").reshape(len(given["sequences"]), steps, vocabulary)
    full = list(rows_of(model(tensors, facts, torch.float32), given))
    half = list(rows_of(model(tensors, facts, torch.float16), given))
    error = lambda out: np.array([[np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(x, y)]
                                  for x, y in zip(out, full)])
    mine, torchs = error(ours), error(half)
    best = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(ours, full))
    met = bool(np.isfinite(ours).all() and mine.max() <= 2 * torchs.max()) if precision == "fp16" else None
    say(step="logits", engine=name, precision=precision, rows=int(mine.size), relativeErrorMax=float(mine.max()),
        relativeErrorMean=float(mine.mean()), promptMax=float(mine[:, 0].max()), answerMax=float(mine[:, 1:].max()),
        torchFp16Max=float(torchs.max()), torchFp16Mean=float(torchs.mean()), sameBest=best, met=met)


def greedy(reference, lines):
    recorded = json.loads(Path(reference).read_text())
    same, first = 0, []
    for line in Path(lines).read_text().splitlines():
        line = json.loads(line)
        if line.get("step") != "greedy":
            continue
        want, got = recorded[line["prompt"]]["tokens"], line["tokens"]
        if want == got:
            same += 1
            continue
        at = next(i for i, (a, b) in enumerate(zip(want, got)) if a != b)
        theirs = recorded[line["prompt"]]["margins"][at]
        first.append({"prompt": line["prompt"], "at": at, "ourMargin": line["margins"][at], "theirMargin": theirs})
    say(step="greedy", prompts=len(recorded), same=same, differences=first)


def transformers_speed(gguf):
    import torch
    from transformers import StaticCache

    tensors, facts = read(gguf)
    net = model(tensors, facts, torch.float16)
    net.config._attn_implementation = "sdpa"
    for batch in (1, 4, 8):
        for context in (128, 1024, 4096 - 72):
            bucket = next(size for size in (256, 512, 1024, 2048, 4096) if size >= context + 64)
            cache = StaticCache(config=net.config, max_cache_len=bucket)
            token = torch.zeros((batch, 1), dtype=torch.long, device="cuda")
            where = torch.tensor([context], device="cuda")
            with torch.no_grad():
                net(torch.randint(10, 40000, (batch, context), device="cuda"), past_key_values=cache, use_cache=True,
                    cache_position=torch.arange(context, device="cuda"), logits_to_keep=1)
                step = lambda: net(token, past_key_values=cache, use_cache=True, cache_position=where,
                                   position_ids=where[None].expand(batch, 1)).logits
                for _ in range(3):
                    step()
                torch.cuda.synchronize()
                begun = time.perf_counter()
                for _ in range(20):
                    step()
                torch.cuda.synchronize()
                plain = (time.perf_counter() - begun) / 20 * 1e3
                recorded = None
                try:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        step()
                    torch.cuda.synchronize()
                    begun = time.perf_counter()
                    for _ in range(100):
                        graph.replay()
                    torch.cuda.synchronize()
                    recorded = (time.perf_counter() - begun) / 100 * 1e3
                except Exception as error:  # what cannot be recorded is reported, not guessed
                    say(step="transformers", problem=repr(error)[:200])
                    torch.cuda.synchronize()
            say(step="transformers", slots=batch, context=context, plainMs=plain, graphMs=recorded)


if __name__ == "__main__":
    commands = {"f32": f32, "sequences": sequences, "logits": logits, "greedy": greedy,
                "transformers": transformers_speed}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
