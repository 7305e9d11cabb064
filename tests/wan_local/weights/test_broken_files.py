"""Broken, unreadable and hostile files: always one line of ours, never another's exception, never foreign code."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from wan_local.errors import ParameterMismatch, UnreadableWeights, WeightsError
from wan_local.notices import WanNotice
from wan_local.weights import inspect, load_image_encoder, load_text_encoder, load_transformer, load_vae, names

LOADERS = (inspect, load_transformer, load_vae, load_text_encoder, load_image_encoder)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    theirs = tiny.transformer().state_dict()
    return {str(names.transformer_to_official(name)): value for name, value in theirs.items()}


def refused(path: Path, load=load_transformer, kind: type[WeightsError] = UnreadableWeights) -> str:
    with pytest.raises(kind) as error:
        load(path)
    assert str(error.value).isprintable()
    return str(error.value)


def checkpoint(path: Path, data: bytes, **more: bytes) -> Path:
    """A torch checkpoint with any bytes where the pickle belongs."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"archive/data.pkl": data, "archive/version": b"3\n", **more}.items():
            archive.writestr(name, content)
    return path


class Runs:
    def __init__(self, path: Path, how: object) -> None:
        self.path, self.how = path, how

    def __reduce__(self):
        return (self.how, (str(self.path),))


@pytest.mark.parametrize("how", [os.mkdir, Path, os.system, eval], ids=str)
def test_pickles_that_run_code_are_refused_and_nothing_runs(tmp_path, how):
    marker = tmp_path / "ran"
    argument = f"touch {marker}" if how is os.system else f"open({str(marker)!r}, 'w')" if how is eval else marker
    bomb = Runs(argument, how)
    for i, payload in enumerate((bomb, {"a": bomb}, [torch.zeros(1), bomb])):
        path = tmp_path / f"{i}.pth"
        torch.save(payload, path)
        for load in LOADERS:
            assert "could run code" in refused(path, load)
        assert "could run code" in refused(checkpoint(tmp_path / "b.pth", pickle.dumps(payload)))
        (tmp_path / "plain.pth").write_bytes(pickle.dumps(payload))
        refused(tmp_path / "plain.pth")
    assert not marker.exists()


BROKEN = [
    b"", b".", b"garbage", b"\x80\x02.", b"\x80\x02}q\x00X\xff\xff\xff\x7f", b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    b"\x80\x02}(X\x01\x00\x00\x00aK\x05u.", b"\x80\x02h\x05.", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R.", b"\x80\x02]K\x01b.", b"\x80\x02K\x05Q.", b"\x80\x02R.",
    b"\x80\x02]q\x00(K\x01u.", b"\x80\x02\x8a\xff", b"\x80\x07.",
]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN)
def test_broken_pickles(tmp_path, data):
    for load in LOADERS:
        assert "broken.pth" in refused(checkpoint(tmp_path / "broken.pth", data), load, WeightsError)


@pytest.mark.parametrize("failure", [
    zipfile.BadZipFile("x"), KeyError("k"), AttributeError("a"), TypeError("t"), EOFError(),
    RuntimeError("line\nbreak"), UnicodeDecodeError("utf-8", b"", 0, 1, "u"), pickle.UnpicklingError("p"),
    MemoryError(), RecursionError(), AssertionError(),
])  # fmt: skip
def test_whatever_torch_raises_is_one_line(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1)}, path)

    def fail(*args, **options):
        raise failure

    monkeypatch.setattr(torch, "load", fail)
    assert "a.pth can't be read" in refused(path)


def test_a_cut_checkpoint_is_called_one(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    path = tmp_path / "cut.pth"
    for keep in (0.1, 0.5, 0.99):
        whole = (tmp_path / "whole.pth").read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])
        for load in LOADERS:
            assert "cut.pth is a torch checkpoint, cut short" in refused(path, load)


def test_archives_that_are_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a.zip is a zip archive without a torch checkpoint" in refused(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    assert "b.pth is a compressed archive" in refused(tmp_path / "b.pth")


@pytest.mark.parametrize(
    "value",
    [torch.zeros(1).expand(10**9), torch.eye(2).to_sparse(), torch.zeros(2, 2, device="meta"),
     torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)],
    ids=["more values than bytes", "sparse", "meta", "quantised"],
)  # fmt: skip
def test_tensors_that_are_not_plain(tmp_path, value):
    torch.save({"conv1.weight": value}, tmp_path / "a.pth")
    assert "conv1.weight" in refused(tmp_path / "a.pth")


def test_two_keys_of_one_spelling(tmp_path):
    torch.save({1: torch.zeros(1), "1": torch.zeros(1)}, tmp_path / "a.pth")
    assert "not a plain table of tensors" in refused(tmp_path / "a.pth")


def test_deep_json(tmp_path, state):
    deep = "[" * 100_000
    (tmp_path / "config.json").write_text(deep)
    assert "config.json is not readable JSON" in refused(tmp_path)
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"config": deep})
    assert "a.safetensors carries a config that is not JSON" in refused(path)


@pytest.mark.parametrize("value", [5, "UMT5EncoderModel", {"a": 1}, [5, None, []], None])
def test_architectures_of_the_wrong_type(tmp_path, value):
    tiny.write_pipeline(tmp_path, torch.float32)
    path = tmp_path / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": value, "_class_name": [value]}))
    assert "text_encoder" in refused(tmp_path, load_text_encoder, WeightsError)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "config.json"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    """Through a refusing ``open``, since the superuser may read everything."""
    if name.endswith("pth"):
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
    elif name.endswith("json"):
        (tmp_path / name).write_text("{}")
    else:
        save_file({"a": torch.zeros(1)}, tmp_path / name)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / name))

    for way in ("io.open", "builtins.open", "pathlib.Path.open"):  # Python 3.10 has its own copy behind the last
        monkeypatch.setattr(way, refuse)
    for load in LOADERS:
        text = refused(tmp_path if name.endswith("json") else tmp_path / name, load)
        assert f"{name} " in text
        assert "Permission denied" in text


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", refuse)
    assert "Permission denied" in refused(tmp_path)


def test_names_with_control_characters(tmp_path, state):
    extra = {"line\nbreak": torch.zeros(1), "bell\x07": torch.zeros(1), "x" * 5000: torch.zeros(1)}
    path = tiny.write_single(tmp_path / "a.safetensors", {**state, **extra}, torch.float16)
    with pytest.warns(WanNotice) as told:
        load_transformer(path)
    text = str(told[0].message)
    assert text.isprintable()
    assert r"'line\nbreak'" in text
    assert len(text) < 1000
    assert all(line.isprintable() for line in str(inspect(path)).split("\n"))
    other = tmp_path / "b.safetensors"
    save_file(extra, other)
    refused(other, kind=WeightsError)


# -- names ----------------------------------------------------------------------------------------------------


def test_two_names_of_one_parameter(tmp_path, state):
    theirs = tiny.transformer().state_dict()
    name = "blocks.0.self_attn.q.weight"
    path = tmp_path / "a.safetensors"
    config = json.dumps({"attention_head_dim": tiny.HEAD_DIM})
    save_file({**theirs, name: state[name].clone()}, path, {"config": config})
    text = refused(path, kind=ParameterMismatch)
    assert "blocks.0.attn1.to_q.weight" in text
    assert name in text
    refused(path, inspect, ParameterMismatch)


def test_companion_files_of_macos_are_skipped(tmp_path, state):
    folder = tiny.write_pipeline(tmp_path / "model", torch.float32)
    for file in [*folder.rglob("*.safetensors"), *folder.rglob("*.json")]:
        (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    assert len(inspect(folder).parts) == 4
    assert load_text_encoder(folder)
    official = tiny.write_official(tmp_path / "official", state)
    (official / "._diffusion_pytorch_model.safetensors.index.json").write_bytes(b"Mac")
    torch.save(load_vae(folder).state_dict(), official / "Wan2.1_VAE.pth")
    (official / "._Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04")
    assert load_transformer(official)
    assert load_vae(official)


def test_the_same_tensor_in_two_files(tmp_path):
    folder = tiny.write_pipeline(tmp_path, torch.float32) / "vae"
    save_file(load_file(folder / "diffusion_pytorch_model.safetensors"), folder / "other.safetensors")
    assert "holds several models: " in refused(folder, load_vae)
