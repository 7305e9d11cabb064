"""Weight files stay on disk until they are used: larger than memory, private to the process, checked before."""

from __future__ import annotations

import errno
import gc
import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.wan_local.weights import packed_files as files
from wan_local.errors import UnreadableWeights
from wan_local.weights import load_transformer
from wan_local.weights.formats import gguf_file, mapped
from wan_local.weights.formats.safetensors_file import read_header


def write(path: Path, header: dict | bytes, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def row(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_file_larger_than_memory_and_swap(tmp_path):
    if sys.platform != "linux":
        pytest.skip("memory is counted in /proc/meminfo, which only Linux has")
    with open("/proc/meminfo") as file:
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    big = (sizes["MemTotal"] + sizes["SwapTotal"]) // 2 * 2 + 2**32
    header = {"big": row("F16", [big // 2], 0, big), "a": row("F32", [4], big, big + 16)}
    path = write(tmp_path / "big.safetensors", header)
    start = path.stat().st_size
    try:
        os.truncate(path, start + big + 16)
    except OSError as error:
        pytest.skip(f"no file of {big:,} bytes can be made here: {error.strerror}")
    if path.stat().st_blocks * 512 > 2**20:
        pytest.skip("this file system has no sparse files")
    with path.open("r+b") as file:
        file.seek(start + big)
        file.write(torch.arange(4.0).numpy().tobytes())
    entries, _ = read_header(path)
    assert entries["a"].read().tolist() == [0, 1, 2, 3]
    whole = entries["big"].read()
    assert (whole.shape, whole.dtype, whole[-1].item()) == ((big // 2,), torch.float16, 0)


def test_tensors_outlive_their_file_handle_and_never_change_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    stored = {
        "half": torch.randn(3, 5).half(), "brain": torch.randn(7).bfloat16(), "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4), "odd": torch.arange(3, dtype=torch.uint8),
        "fp8": torch.ones(4).to(torch.float8_e4m3fn),
    }  # fmt: skip
    save_file(stored, path)
    before = path.read_bytes()
    entries, _ = read_header(path)
    tensors = {name: entry.read() for name, entry in entries.items()}
    del entries
    gc.collect()
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (stored[name].dtype, stored[name].shape), name
        assert torch.equal(tensor.float(), stored[name].float()), name
        tensor.zero_()
        assert not tensor.float().any()
    assert path.read_bytes() == before


def test_tensors_at_odd_places_are_whole(tmp_path):
    values = torch.randn(6)
    header = json.dumps({"byte": row("U8", [1], 0, 1), "a": row("F32", [6], 1, 25)}).encode()
    path = write(tmp_path / "odd.safetensors", header + b" " * (-len(header) % 8), b"\x01" + values.numpy().tobytes())
    tensor = read_header(path)[0]["a"].read()
    assert torch.equal(tensor, values)
    assert tensor.data_ptr() % 4 == 0


@pytest.mark.parametrize("failure", [errno.ENOMEM, errno.ENODEV])
def test_a_file_that_cannot_be_mapped_is_read(tmp_path, monkeypatch, failure):
    """Strict overcommit refuses the map; some network file systems know no maps at all."""

    def refuse(*args, **options):
        raise OSError(failure, os.strerror(failure))

    def no_memory(*place):
        raise MemoryError

    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(5.0), "b": torch.zeros(0)}, path)
    monkeypatch.setattr(mapped.mmap, "mmap", refuse)
    entries, _ = read_header(path)
    assert entries["a"].read().tolist() == [0, 1, 2, 3, 4]
    assert entries["b"].read().shape == (0,)
    monkeypatch.setattr(mapped, "_read", no_memory)
    with pytest.raises(UnreadableWeights, match="a.safetensors: there is no memory for a .20 bytes.; free some"):
        entries["a"].read()


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(5000.0)}, path)
    entries, _ = read_header(path)
    os.truncate(path, 4096)
    with pytest.raises(UnreadableWeights, match="a.safetensors: a can't be read .*; download it again"):
        entries["a"].read()


@pytest.mark.parametrize("form", ["safetensors", "GGUF F16", "GGUF Q8_0", "GGUF Q4_K"])
def test_other_systems_open_it_too(tmp_path, monkeypatch, form):
    """Windows and macOS: safetensors by its library, GGUF mapped without Linux' flags."""
    path, state = tmp_path / "model", files.original()
    if form == "safetensors":
        files.write_plain(path, state, torch.bfloat16)
    else:
        files.write_gguf(path, state, form.removeprefix("GGUF "))
    content, expected = path.read_bytes(), files.forward(load_transformer(path, dtype=torch.float32))
    monkeypatch.setattr(mapped, "can_map", lambda: False)
    for name in ("MAP_PRIVATE", "PROT_READ", "PROT_WRITE", "MADV_DONTNEED"):  # Windows has none of them
        monkeypatch.delattr(mapped.mmap, name)
    model = load_transformer(path, dtype=torch.float32)
    assert torch.equal(files.forward(model), expected)
    for parameter in model.parameters():
        parameter.view(torch.uint8).zero_()
    assert path.read_bytes() == content


@pytest.mark.parametrize("form", ["safetensors", "GGUF"])
def test_other_systems_say_what_is_wrong_with_a_file_too(tmp_path, monkeypatch, form):
    monkeypatch.setattr(mapped, "can_map", lambda: False)
    path = tmp_path / "model"
    if form == "GGUF":
        files.write_gguf(path, files.original(), "Q8_0")
        entries, _ = gguf_file.read_header(path)
    else:
        files.write_plain(path, files.original(), torch.float32)
        entries, _ = read_header(path)
    os.truncate(path, 4096)
    with pytest.raises(UnreadableWeights, match=r"model: head.head.weight can't be read .*; download it again"):
        entries["head.head.weight"].read()


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ({"a": row("F32", [2], 0, 8), "b": row("F32", [2], 4, 12)}, 12, "'?b'? overlaps"),
        ({"a": row("F32", [1], 0, 4), "b": row("F32", [1], 8, 12)}, 12, "no tensor has the 4 bytes before '?b'?"),
        ({"a": row("F32", [1], 0, 4)}, 9, "5 bytes behind its last tensor"),
        ({"a": row("F99", [1], 0, 4)}, 4, "'F99'"),
        ({"a": row("F32", [True], 0, 4)}, 4, "shape"),
        ({"a": row("F32", [1.0], 0, 4)}, 4, "shape"),
        ({"a": row("F32", [1], 0.0, 4.0)}, 4, "data_offsets"),
        ({"a": row("F32", [1], -4, 0)}, 4, "data_offsets"),
        ({"a": row("F32", [0, 2**70], 0, 0)}, 0, "shape"),
        ({"a": row("F32", [1] * 100, 0, 4)}, 4, "100 sides"),
        ({"a\nb": row("F32", [3], 0, 4)}, 4, r"a\\nb"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
         4, "'?a'? stands there twice"),
        (b'{"__metadata__":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 0, "broken header"),
        ({"__metadata__": 5}, 0, "__metadata__"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path, header, size, reason):
    path = write(tmp_path / "lie.safetensors", header, b"\x00" * size)
    with pytest.raises(UnreadableWeights, match=reason) as error:
        read_header(path)
    assert "lie.safetensors has a broken header" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_with_line_breaks_stays_on_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"some\nthing\x1b[31m": torch.zeros(2)}, path)
    entries, _ = read_header(path)
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(UnreadableWeights) as error:
        entries["some\nthing\x1b[31m"].read()
    assert str(error.value).isprintable()
