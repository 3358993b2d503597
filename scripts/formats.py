#!/usr/bin/env python3
"""What the packages `gguf` and `safetensors` read: the references of the weight readers' tests.

  formats.py encodings          JSON: digests of pseudo-random blocks of every encoding, decoded
                                (recorded as tests/fixtures/weights/encodings.json)
  formats.py gguf FILE          `name elements digest` of each tensor, rows of queries and keys put
                                back into the order of Hugging Face's checkpoints
  formats.py safetensors FOLDER the same of a folder of safetensors, under the names it has
  formats.py write FOLDER [N]   writes a tiny random Llama in three types, in N files

Digests are SHA-256 over the values as little-endian 32-bit floating point. Needs the environment
that `scripts/tools formats` makes.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Where 16-bit scales stand in a block.
SCALES = {
    "F32": [], "F16": [0], "BF16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
BLOCKS = 257


def digest(values):
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def random_bytes(count, seed):
    """xorshift64, the lowest byte of each state."""
    state, out = seed, bytearray()
    for _ in range(count):
        state ^= state << 13 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 7
        state ^= state << 17 & 0xFFFFFFFFFFFFFFFF
        out.append(state & 0xFF)
    return out


def blocks(name, seed):
    """Random blocks whose numbers are finite: the upper bit of each exponent is cleared."""
    _, size = GGML_QUANT_SIZES[Type[name]]
    data = random_bytes(size * BLOCKS, seed)
    for start in range(0, len(data), size):
        for at in SCALES[name]:
            data[start + at + 1] &= 0xBF
        if name == "F32":
            data[start + 3] &= 0xBF
    return bytes(data)


def encodings():
    found = {}
    for seed, name in enumerate(SCALES, start=1):
        data = np.frombuffer(blocks(name, seed), dtype=np.uint8)
        values = dequantize(data.reshape(1, -1), Type[name]).reshape(-1)
        assert np.isfinite(values).all(), name
        found[name] = {"seed": seed, "first": [float(v) for v in values[:4]], "digest": digest(values)}
    json.dump(found, sys.stdout, indent=2)
    print()


def natural(values, heads):
    """Undoes what llama.cpp's converter does with `permute`."""
    rows = values.shape[0]
    halves = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def gguf(path):
    reader = GGUFReader(path)
    field = lambda name: reader.fields[name].contents()
    llama = field("general.architecture") == "llama"
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if llama and tensor.name.split(".")[-2] in ("attn_q", "attn_k"):
            key = "head_count" if tensor.name.split(".")[-2] == "attn_q" else "head_count_kv"
            values = natural(values, field(f"llama.attention.{key}"))
        print(tensor.name, values.size, digest(values))


def safetensors(folder):
    from safetensors import deserialize

    for path in sorted(Path(folder).glob("*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):
            data = bytes(tensor["data"])
            if tensor["dtype"] == "BF16":
                values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[tensor["dtype"]])
            print(name, values.size, digest(values))


def write(folder, files=1):
    from safetensors import TensorSpec, serialize_file

    folder, files = Path(folder), int(files)
    hidden, heads, kv_heads, head, wide, vocabulary, layers = 64, 4, 2, 16, 96, 40, 2
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden],
              "lm_head.weight": [vocabulary, hidden]}
    for layer in range(layers):
        part = lambda name: f"model.layers.{layer}.{name}.weight"
        shapes |= {
            part("input_layernorm"): [hidden], part("post_attention_layernorm"): [hidden],
            part("self_attn.q_proj"): [heads * head, hidden], part("self_attn.k_proj"): [kv_heads * head, hidden],
            part("self_attn.v_proj"): [kv_heads * head, hidden], part("self_attn.o_proj"): [hidden, heads * head],
            part("mlp.gate_proj"): [wide, hidden], part("mlp.up_proj"): [wide, hidden],
            part("mlp.down_proj"): [hidden, wide],
        }
    random = np.random.default_rng(1)
    shards = [{} for _ in range(files)]
    for number, (name, shape) in enumerate(shapes.items()):
        values = random.standard_normal(shape, dtype=np.float32)
        dtype = ["F32", "F16", "BF16"][number % 3]
        data = {"F32": lambda: values, "F16": lambda: values.astype("<f2"),
                "BF16": lambda: (values.view(np.uint32) >> 16).astype("<u2")}[dtype]().tobytes()
        shards[number % files][name] = (dtype, shape, np.frombuffer(data, dtype=np.uint8))
    names = ["model.safetensors"] if files == 1 else [
        f"model-{number:05}-of-{files:05}.safetensors" for number in range(1, files + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, shard in zip(names, shards):
        types = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        specs = {tensor: TensorSpec(dtype=types[dtype], shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
                 for tensor, (dtype, shape, data) in shard.items()}
        serialize_file(specs, str(folder / name), {"format": "pt"})
    if files > 1:
        index = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "intermediate_size": wide, "vocab_size": vocabulary, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu"}))


if __name__ == "__main__":
    commands = {"encodings": encodings, "gguf": gguf, "safetensors": safetensors, "write": write}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
