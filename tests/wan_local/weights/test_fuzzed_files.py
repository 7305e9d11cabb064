"""Thousands of small damages: whatever is in a file, only our own errors come out, on one line and soon.

``WAN_FUZZ`` sets how many damages are tried: 500 of small files, ten times as many of headers alone, a quarter as
many of whole models; ``make soak`` tries 5,000. A failure names the damage's number, and the same number always gives
the same damage.
"""

from __future__ import annotations

import json
import os
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from tests.wan_local.weights import packed_files
from tests.wan_local.weights.ggml_encoders import encode
from wan_local.errors import WeightsError
from wan_local.weights import inspect, load_image_encoder, load_text_encoder, load_transformer, load_vae
from wan_local.weights.load import open_source

ROUNDS = int(os.environ.get("WAN_FUZZ", "500"))
Q4_K, Q8_0 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q8_0
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 2**31, 2**63, 2**64, 10**400, 0.0, 0.5, -1.5, 1e308, float("inf"),
    float("nan"), "", "x", "F16", "F99", "I8", "line\nbreak", "\ud800", "\x00", "../x", "x" * 300, [], {}, [[]], [None],
    [-1, 2], [2**62, 4], {"a": 1}, {"dtype": "F32"}, "WanModel", "AutoencoderKLWan", ["UMT5EncoderModel"],
)  # fmt: skip
Mutate = Callable[[bytes, random.Random], bytes]
Case = tuple[Path, tuple[Path, ...], Callable[..., Any], tuple[Mutate, ...]]  # file, what is opened, by whom, damages


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, inner in rows:
        found += [(value, key), *places(inner)]
    return found


def mutate_value(value: Any, rng: random.Random) -> Any:
    """One or two entries replaced, dropped, doubled under another name, or swapped."""
    for _ in range(rng.choice((1, 1, 2))):
        found = places(value)
        if not found:
            return rng.choice(ODD)
        holder, key = rng.choice(found)
        what = rng.randrange(5)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(("x", "blocks.900.x", "a\nb", "__metadata__", str(key) + ".", "config"))] = holder[key]
        elif what == 2:
            other, place = rng.choice(found)
            if key in holder if isinstance(holder, dict) else key < len(holder):
                holder[key] = json.loads(json.dumps(other[place])) if other is not holder else holder[key]
        elif what == 3 and type(holder[key]) is int:
            holder[key] = holder[key] + rng.choice((-8, -1, 1, 4, 10**6))
        else:
            holder[key] = rng.choice(ODD)
    return value


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(mutate_value(json.loads(data), rng)).encode()


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out or put in; or the end is missing, or there is more."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, what = rng.randrange(len(changed) + 1), rng.randrange(6)
        if what < 2 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif what == 2:
            del changed[at : at + rng.randrange(1, 9)]
        elif what == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif what == 4:
            del changed[at:]
        else:
            changed[at:at] = rng.choice((b"[" * 20_000, b"\\ud800", b"\xff\xfe", b"Infinity", b"1e999", b'"', b"}{"))
    return bytes(changed)


def in_header(mutate: Mutate) -> Mutate:
    """Damage the header of a safetensors file and count its length right."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        text = mutate(data[8 : 8 + length], rng)
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return damage


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Case]:
    root = tmp_path_factory.mktemp("fuzz")
    pipeline = tiny.write_pipeline(root / "pipeline", torch.float16)
    state = load_transformer(pipeline).state_dict()
    official = tiny.write_official(root / "official", state)
    single = tiny.write_single(root / "single.safetensors", state, torch.float16, "model.diffusion_model.")
    whole = packed_files.original()
    scaled = packed_files.write_comfy_quant(root / "scaled.safetensors", whole, torch.float8_e4m3fn, in_metadata=True)
    packed = packed_files.write_gguf(root / "packed.gguf", whole, "Q4_K")
    vae = root / "official" / "vae.pth"
    torch.save(load_vae(pipeline).half().state_dict(), vae)
    lone = root / "vae.safetensors"
    save_file(load_vae(pipeline).half().state_dict(), lone)
    encoders = write_official_encoders(root / "encoders")
    header, table, raw = in_header(mutate_json), mutate_json, mutate_bytes
    loaders = {
        "transformer": load_transformer, "vae": load_vae, "text_encoder": load_text_encoder,
        "image_encoder": load_image_encoder,
    }  # fmt: skip
    made: list[Case] = [
        (single, (single,), load_transformer, (header, header, in_header(raw), raw)),
        (lone, (lone,), load_vae, (header, in_header(raw))),
        (scaled, (scaled,), load_transformer, (header, header, in_header(raw))),
        (packed, (packed,), load_transformer, (head_bytes, head_bytes, raw)),
        (vae, (official, vae), load_vae, (raw, pickle_bytes)),
        (official / "config.json", (official,), load_transformer, (table,)),
        (official / "diffusion_pytorch_model.safetensors.index.json", (official,), load_transformer, (table, raw)),
        (encoders / "t5.pth", (encoders, encoders / "t5.pth"), load_text_encoder, (raw, pickle_bytes, pickle_bytes)),
        (pipeline / "model_index.json", (pipeline,), load_vae, (table, raw)),
        (pipeline / "tokenizer" / "tokenizer_config.json", (pipeline,), load_text_encoder, (table,)),
    ]
    for part, load in loaders.items():
        file = next((pipeline / part).glob("*.safetensors"))
        made.append((pipeline / part / "config.json", (pipeline, pipeline / part), load, (table, table, raw)))
        made.append((file, (pipeline, file), load, (header, in_header(raw))))
    return made


def pickle_bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage where the pickle is, at the start of a checkpoint, not in the values behind it."""
    return mutate_bytes(data[:3000], rng) + data[3000:] if rng.random() < 0.5 else _swap(data, rng)


def head_bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage where a GGUF header is: bytes changed one for one, numbers made large, or the whole shifted."""
    if rng.random() < 0.3:
        return mutate_bytes(data[:8000], rng) + data[8000:]
    changed = bytearray(data)
    end = min(8000, len(data) - 8)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(end)
        if rng.random() < 0.5:
            changed[at] = rng.randrange(256)
        else:
            struct.pack_into("<Q", changed, at, rng.choice((0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1)))
    return bytes(changed)


def _swap(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed one for one, so that the archive stays whole."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3))):
        opcode = rng.choice(b"\x00\xff(.}]RcbQhu\x85K" + rng.randbytes(1))
        changed[rng.randrange(60, min(6000, len(data)))] = opcode
    return bytes(changed)


def write_official_encoders(folder: Path) -> Path:
    """The official text encoder in small."""
    theirs = {
        "token_embedding": (300, 8), "norm": (8,), "blocks.0.norm1": (8,), "blocks.0.attn.q": (8, 8),
        "blocks.0.attn.k": (8, 8), "blocks.0.attn.v": (8, 8), "blocks.0.attn.o": (8, 8), "blocks.0.norm2": (8,),
        "blocks.0.pos_embedding.embedding": (32, 2), "blocks.0.ffn.gate.0": (12, 8), "blocks.0.ffn.fc1": (12, 8),
        "blocks.0.ffn.fc2": (8, 12),
    }  # fmt: skip
    tiny.write_tokenizer(folder / "google" / "umt5-xxl")
    torch.save({f"{name}.weight": torch.zeros(shape) for name, shape in theirs.items()}, folder / "t5.pth")
    return folder


def read_all(path: Path) -> None:
    """Every tensor of a file, so that each byte range is used."""
    source = open_source(path, "transformer")
    for entry in source.entries.values():
        if sum(entry.shape) < 10_000:  # of no numbers, but many rows of none
            assert tuple(entry.numbers(entry.read(), None).shape) == entry.shape


def test_small_files(tmp_path):
    """Headers and pickles damaged in quick succession: whatever is accepted can be read to its last value."""
    tensors = {
        "a.weight": torch.randn(3, 4),
        "b": torch.zeros(5).half(),
        "none": torch.zeros(0, 2),
        "one": torch.ones(()),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"config": json.dumps({"num_heads": 2})})
    torch.save(tensors, tmp_path / "a.pth")
    plain, pickled = (tmp_path / name for name in ("a.safetensors", "a.pth"))
    damages = {
        plain: (in_header(mutate_json), in_header(mutate_bytes), mutate_bytes),
        pickled: (pickle_bytes, mutate_bytes),
    }
    kept = {file: file.read_bytes() for file in damages}
    refused = 0
    for number in range(ROUNDS):
        rng = random.Random(number)
        file = pickled if number % 4 == 0 else plain
        file.write_bytes(rng.choice(damages[file])(kept[file], rng))
        refused += quietly(read_all, file, number)
        quietly(inspect, file, number)
    print(f"{ROUNDS:,} damaged files, {refused:,} refused")
    assert ROUNDS / 4 < refused < ROUNDS


def test_headers(tmp_path):
    """The parsers of headers and of the marks of packed weights, on everything that can stand before the numbers."""
    tensors = {
        "blocks.0.a.weight": torch.zeros(4, 32).to(torch.float8_e4m3fn),
        "blocks.0.a.scale_weight": torch.ones(()),
        "b.weight": torch.zeros(4, 32).to(torch.float8_e5m2),
        "b.weight_scale": torch.ones(4, 1),
        "b.comfy_quant": torch.tensor(list(b'{"format": "float8_e5m2"}'), dtype=torch.uint8),
        "norm": torch.zeros(5).half(),
    }
    marks = {"_quantization_metadata": json.dumps({"layers": {"b": {"format": "float8_e5m2"}}})}
    plain, packed = tmp_path / "a.safetensors", tmp_path / "a.gguf"
    save_file(tensors, plain, marks)
    writer = gguf.GGUFWriter(packed, arch="wan")
    writer.add_string("config", "{}")
    writer.add_array("comfy.gguf.orig_shape.c", [2, 3, 4])
    writer.add_array("words", ["a", "b"])
    writer.add_array("numbers", list(range(40)))
    writer.add_tensor("a.weight", encode(np.zeros((4, 256), np.float32), "Q4_K"), raw_dtype=Q4_K)
    writer.add_tensor("b.weight", encode(np.zeros((2, 64), np.float32), "Q8_0"), raw_dtype=Q8_0)
    writer.add_tensor("c", np.zeros((6, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    damages = {plain: (in_header(mutate_json), in_header(mutate_json), in_header(mutate_bytes)),
               packed: (head_bytes, head_bytes, mutate_bytes)}  # fmt: skip
    kept = {file: file.read_bytes() for file in damages}
    read_all(plain)
    read_all(packed)
    refused = dict.fromkeys(damages, 0)
    rounds = ROUNDS * 10
    for number in range(rounds):
        rng = random.Random(number)
        file = (plain, packed)[number % 2]
        file.write_bytes(rng.choice(damages[file])(kept[file], rng))
        refused[file] += quietly(read_all, file, number)
    print(f"{rounds:,} damaged headers, {refused[plain]:,} of safetensors and {refused[packed]:,} of GGUF refused")
    assert all(rounds / 8 < count < rounds / 2 for count in refused.values())


def test_whole_models(cases):
    """Each round damages one file, opens it as a person would, and mends it."""
    kept = {file: file.read_bytes() for file, *_ in cases}
    refused = 0
    rounds = ROUNDS // 4
    for number in range(rounds):
        rng = random.Random(number)
        file, opened, load, damages = cases[number % len(cases)]
        file.write_bytes(rng.choice(damages)(kept[file], rng))
        if rng.random() < 0.6:
            refused += quietly(load, opened[0], number)
        else:
            refused += quietly(inspect, opened[rng.random() < 0.9 and -1], number)
        file.write_bytes(kept[file])
    print(f"{rounds:,} damaged models, {refused:,} refused")
    assert refused > rounds / 4  # the damages do reach what is checked
    for _, opened, load, _ in cases:  # and nothing but them was refused
        load(opened[0])


def quietly(call: Callable[[Path], Any], path: Path, number: int) -> bool:
    """Whether a call refuses a file; anything but a line of ours fails the test with the damage's number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = call(path)
    except WeightsError as error:
        told = str(error)
    except BaseException as error:
        raise AssertionError(f"damage {number}: {call.__name__}({path}) raised {error!r}") from error
    else:
        told = ""
    assert len(told) < 2000, (number, told)
    assert not told or told.isprintable(), (number, told)
    if told:
        return True
    if call is inspect:
        assert all(line.isprintable() for line in str(made).split("\n")), number
        json.dumps(made.to_dict())
    return False
