#!/usr/bin/env python3
"""The references of scripts/gpu-proof.

  gpu-proof.py convert GGUF OUT TYPE      a GGUF with the same tensors as F32, F16, Q8_0 or Q4_0 (needs gguf)
  gpu-proof.py random GGUF OUT TYPE       a GGUF with the tokens of another, the dimensions of Llama 3 8B and
                                          random weights of that type (needs gguf)
  gpu-proof.py sequences REFERENCE OUT    sequences for `gpu logits` from recorded continuations
  gpu-proof.py logits GGUF SEQUENCES ROWS NAME [PRECISION]
                                          rows of `gpu logits` against PyTorch in FP32 and FP16 (needs
                                          gguf, torch and a GPU)
  gpu-proof.py greedy REFERENCE LINES     continuations of `gpu greedy` against the recorded ones
  gpu-proof.py onnx GGUF                  one step through ONNX and TensorRT's own parser (needs torch and the
                                          Python package of TensorRT-RTX)
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


def begin(source, out, kind, change=None):
    """A writer with the metadata of another file."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

    reader = GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(out, arch)
    change = {f"{arch}.{key}": value for key, value in (change or {}).items()}
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        of, sub = field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, change.get(key, field.contents()), of, sub_type=sub)
    writer.add_file_type(LlamaFileType.ALL_F32 if kind == "F32" else LlamaFileType[f"MOSTLY_{kind}"])
    return reader, writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(source, out, kind):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    reader, writer = begin(source, out, kind)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        # Vectors stay as they are, as in llama.cpp's own files.
        of = GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        writer.add_tensor(tensor.name, quantize(values, of), raw_dtype=of)
    finish(writer)


def random(source, out, kind):
    from gguf import GGMLQuantizationType

    layers, hidden, ffn, heads, kv = 32, 4096, 14336, 32, 8
    reader, writer = begin(source, out, kind, {
        "block_count": layers, "embedding_length": hidden, "feed_forward_length": ffn, "attention.head_count": heads,
        "attention.head_count_kv": kv, "rope.dimension_count": hidden // heads,
    })
    vocabulary = int(next(one for one in reader.tensors if one.name == "token_embd.weight").shape[1])
    numbers = np.random.default_rng(8)

    def matrix(name, rows, columns):
        of = GGMLQuantizationType[kind]
        if kind == "F16":
            values = (numbers.random((rows, columns), dtype=np.float32) - 0.5) * 0.06
            return writer.add_tensor(name, values.astype(np.float16))
        # A scale, then 32 integers of 8 or 4 bits: uniform, of about the size that trained weights have.
        integers = {"Q8_0": 32, "Q4_0": 16}[kind]
        blocks = np.empty((rows * columns // 32, 2 + integers), dtype=np.uint8)
        blocks[:, :2] = np.array([0.03 / (128 if kind == "Q8_0" else 8)], dtype=np.float16).view(np.uint8)
        blocks[:, 2:] = np.frombuffer(numbers.bytes(blocks.shape[0] * integers), dtype=np.uint8).reshape(-1, integers)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=of)

    def vector(name, length):
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    matrix("token_embd.weight", vocabulary, hidden)
    for layer in range(layers):
        blk = f"blk.{layer}."
        vector(blk + "attn_norm.weight", hidden)
        for name, rows, columns in (("attn_q", hidden, hidden), ("attn_k", hidden // heads * kv, hidden),
                                    ("attn_v", hidden // heads * kv, hidden), ("attn_output", hidden, hidden)):
            matrix(f"{blk}{name}.weight", rows, columns)
        vector(blk + "ffn_norm.weight", hidden)
        for name, rows, columns in (("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden), ("ffn_down", hidden, ffn)):
            matrix(f"{blk}{name}.weight", rows, columns)
    vector("output_norm.weight", hidden)
    matrix("output.weight", vocabulary, hidden)
    finish(writer)


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


class Step:
    """One token of each sequence as a PyTorch module that the ONNX exporter takes: the past of keys and values
    is an input of a fixed length, the new ones are outputs, as in the split form."""

    def __new__(cls, tensors, facts, context):
        import torch
        import torch.nn.functional as F

        heads, kv, eps = facts["heads"], facts["kv"], facts["eps"]
        size = facts["hidden"] // heads

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                for name, values in tensors.items():
                    self.register_buffer(name.replace(".", "_"), torch.from_numpy(values).half().cuda())
                angles = facts["theta"] ** -(torch.arange(0, size, 2, device="cuda").float() / size) * context
                self.register_buffer("cosine", angles.cos().repeat(2).half())
                self.register_buffer("sine", angles.sin().repeat(2).half())

            def weight(self, name):
                return getattr(self, name.replace(".", "_"))

            def norm(self, x, name):
                y = x.float()
                return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)).half() * self.weight(name)

            def turn(self, x):
                low, high = x.chunk(2, -1)
                return x * self.cosine + torch.cat([-high, low], -1) * self.sine

            def forward(self, tokens, *past):
                rows = tokens.shape[0]
                x, new = F.embedding(tokens, self.weight("token_embd.weight")), []
                for layer in range(facts["layers"]):
                    blk = f"blk.{layer}."
                    h = self.norm(x, blk + "attn_norm.weight")
                    split = lambda name, count: F.linear(h, self.weight(f"{blk}{name}.weight")).view(rows, 1, count, size).transpose(1, 2)
                    q, k, v = self.turn(split("attn_q", heads)), self.turn(split("attn_k", kv)), split("attn_v", kv)
                    keys, values = torch.cat([past[2 * layer], k], 2), torch.cat([past[2 * layer + 1], v], 2)
                    # Heads that share keys side by side, so that nothing is repeated.
                    scores = q.reshape(rows, kv, heads // kv, size) @ keys.transpose(-1, -2) * size ** -0.5
                    mixed = torch.softmax(scores, -1) @ values
                    x = x + F.linear(mixed.reshape(rows, 1, heads * size), self.weight(blk + "attn_output.weight"))
                    h = self.norm(x, blk + "ffn_norm.weight")
                    up = F.linear(h, self.weight(blk + "ffn_up.weight"))
                    x = x + F.linear(F.silu(F.linear(h, self.weight(blk + "ffn_gate.weight"))) * up, self.weight(blk + "ffn_down.weight"))
                    new += [k, v]
                head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
                return F.linear(self.norm(x, "output_norm.weight"), self.weight(head)).float(), *new

        return Net().eval()


def onnx_speed(gguf):
    import tempfile

    import torch

    import tensorrt_rtx_bindings as trt

    tensors, facts = read(gguf)
    logger = trt.Logger(trt.Logger.WARNING)
    size = facts["hidden"] // facts["heads"]
    for context in (128, 1024, 4031):
        for rows in (1, 8):
            net = Step(tensors, facts, context)
            tokens = torch.randint(10, 40000, (rows, 1), device="cuda")
            past = [torch.randn(rows, facts["kv"], context, size, device="cuda").half() * 0.1 for _ in range(2 * facts["layers"])]
            with tempfile.TemporaryDirectory() as folder, torch.no_grad():
                path = f"{folder}/step.onnx"
                expected = net(tokens, *past)[0]
                names = ["tokens"] + [f"past.{i}" for i in range(len(past))]
                torch.onnx.export(net, (tokens, *past), path, input_names=names, dynamo=False, opset_version=17,
                                  output_names=["logits"] + [f"new.{i}" for i in range(len(past))])
                builder = trt.Builder(logger)
                network = builder.create_network(0)
                reader = trt.OnnxParser(network, logger)
                begun = time.perf_counter()
                if not reader.parse_from_file(path):
                    say(step="onnx", problem=[str(reader.get_error(i))[:200] for i in range(reader.num_errors)])
                    return
                plan = builder.build_serialized_network(network, builder.create_builder_config())
                built = time.perf_counter() - begun
            engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
            run = engine.create_execution_context()
            held = {"tokens": tokens} | {f"past.{i}": one for i, one in enumerate(past)}
            kinds = {trt.float32: torch.float32, trt.float16: torch.float16, trt.int64: torch.int64, trt.int32: torch.int32}
            for i in range(engine.num_io_tensors):
                name = engine.get_tensor_name(i)
                if name not in held:
                    held[name] = torch.empty(tuple(engine.get_tensor_shape(name)), dtype=kinds[engine.get_tensor_dtype(name)], device="cuda")
                run.set_tensor_address(name, held[name].data_ptr())
            stream = torch.cuda.Stream()
            for _ in range(3):
                run.execute_async_v3(stream.cuda_stream)
            # Kernels for exactly these sizes are compiled while general ones run.
            time.sleep(2)
            run.execute_async_v3(stream.cuda_stream)
            stream.synchronize()
            error = float((held["logits"] - expected).norm() / expected.norm())
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                run.execute_async_v3(stream.cuda_stream)
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(101)]
            with torch.cuda.stream(stream):
                for mark in marks[:1]:
                    mark.record()
                for mark in marks[1:]:
                    graph.replay()
                    mark.record()
            torch.cuda.synchronize()
            replay = sorted(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))[50]
            say(step="onnx", slots=rows, context=context, replayMs=replay, buildS=built, relativeError=error,
                planMib=plan.nbytes >> 20)
            del run, engine, graph, held, past, net
            torch.cuda.empty_cache()


if __name__ == "__main__":
    commands = {"convert": convert, "random": random, "sequences": sequences, "logits": logits, "greedy": greedy,
                "onnx": onnx_speed, "transformers": transformers_speed}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
