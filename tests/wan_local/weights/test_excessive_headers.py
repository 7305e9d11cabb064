"""Headers that say more than any real file has are refused at once, and real ones are read once."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from tests.wan_local.weights import packed_files as files
from wan_local import weights
from wan_local.errors import UnreadableWeights
from wan_local.memory import stored
from wan_local.weights.formats import gguf_file, safetensors_file

STRING, ARRAY, EMPTY = 8, 9, struct.pack("<Q", 0)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def lists(*counts: int, item: bytes = EMPTY) -> bytes:
    """A GGUF file without tensors, with lists of strings."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(counts) + 1)
    for number, count in enumerate(counts):
        head += text(b"list %d" % number) + struct.pack("<IIQ", ARRAY, STRING, count) + item * count
    return head + text(b"general.name") + struct.pack("<I", STRING) + text(b"behind them")


def test_lists_of_strings_are_passed_over(tmp_path: Path) -> None:
    """A vocabulary of umT5's size, which need not be text unless it is asked for."""
    path = tmp_path / "a.gguf"
    path.write_bytes(lists(256_384, 256_384, item=text(b"\xff\xfe piece")))
    _, metadata = gguf_file.read_header(path)
    assert metadata["general.name"] == "behind them"
    assert [metadata[f"list {number}"].count for number in (0, 1)] == [256_384, 256_384]
    with pytest.raises(UnreadableWeights, match="a.gguf has a list in its header that can't be read"):
        metadata["list 1"].read()
    path.write_bytes(lists(3, 2, item=text("日本".encode())))
    assert gguf_file.read_header(path)[1]["list 1"].read() == ["日本", "日本"]


@pytest.mark.parametrize("counts", [(101,), (60, 41), (2**60,)])
def test_too_many_strings(counts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "MAX_STRINGS", 100)
    path = tmp_path / "a.gguf"
    path.write_bytes(lists(60, 40))
    assert gguf_file.read_header(path)[1]["general.name"] == "behind them"
    only_said = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<IIQ", ARRAY, STRING, counts[0])
    path.write_bytes(only_said if counts[0] > 1000 else lists(*counts))
    with pytest.raises(UnreadableWeights, match=r"a.gguf has a broken header .it lists [\d,]+ strings"):
        gguf_file.read_header(path)


def test_a_list_that_goes_on_behind_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    for item in (struct.pack("<Q", 2**63), struct.pack("<Q", 5000)):
        path.write_bytes(lists(3, item=item))
        with pytest.raises(UnreadableWeights, match="is cut short"):
            gguf_file.read_header(path)
    path.write_bytes(lists(1000)[:4000])
    with pytest.raises(UnreadableWeights, match="is cut short"):
        gguf_file.read_header(path)


@pytest.mark.parametrize("tensors", [True, False])
def test_too_many_of_anything_in_a_gguf_file(tensors: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    many = gguf_file.MAX_TENSORS + 1
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *((many, 0) if tensors else (0, many))) + b"\0" * 99)
    told = r"50,001 tensors and 0 other" if tensors else r"0 tensors and 50,001 other"
    with pytest.raises(UnreadableWeights, match=told):
        gguf_file.read_header(path)


def test_too_many_tensors_in_a_safetensors_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, row = tmp_path / "a.safetensors", {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}

    def write(header: object) -> None:
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(data)) + data)

    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 100)
    write({str(number): row for number in range(100)})
    assert len(safetensors_file.read_header(path)[0]) == 100
    write({str(number): row for number in range(101)})
    monkeypatch.setattr(safetensors_file, "_parse", lambda text: pytest.fail("a table was made of it"))
    with pytest.raises(UnreadableWeights, match="a.safetensors has a broken header .it has more than 100 tensors"):
        safetensors_file.read_header(path)
    for many in (b"[],", b"0,", b"["):
        write(b'{"a":[' + many * (safetensors_file.MAX_PARTS + 1) + b"0]}")
        with pytest.raises(UnreadableWeights, match="more than 5,000,000 commas or brackets"):
            safetensors_file.read_header(path)


@pytest.mark.parametrize("form", ["safetensors", "GGUF"])
def test_a_file_is_read_once(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "model", []
    if form == "GGUF":
        files.write_gguf(path, files.original(), "Q8_0")
    else:
        files.write_plain(path, files.original(), torch.bfloat16)
    for reader in (gguf_file, safetensors_file):
        real = reader.read_header
        monkeypatch.setattr(reader, "read_header", lambda path, real=real: opened.append(path) or real(path))
    assert weights.inspect(path).kind == "FLF2V transformer"
    assert len(opened) == 1
    assert stored.read(path, torch.bfloat16) is not None
    assert len(opened) == 2
