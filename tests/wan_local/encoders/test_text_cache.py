"""Kept prompts: the very embeddings again without the encoder, whatever happens to the files, and within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests import tiny
from wan_local import parts, weights
from wan_local.encoders import TextEncoder
from wan_local.encoders.cache import (
    ABANDONED,
    BEGINNING,
    FOLDER,
    SAMPLE,
    CachedTextEncoder,
    TextCache,
    identity,
)
from wan_local.generate import Pipeline
from wan_local.memory import Memory
from wan_local.parts import text_encoder

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
NANO = ROOT / "weights" / "nano"
PROMPT, OTHER = "a red disc moves right", "a blue square"
KEY = "0f" * 32  # keys are hashes


def key(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder, length=40)
    return TextEncoder(AutoTokenizer.from_pretrained(folder, local_files_only=True), tiny.text_encoder())


def never() -> None:
    raise AssertionError("the text encoder was loaded")


def cached(folder: Path, load: object, name: str = "encoder", **options: object) -> CachedTextEncoder:
    return CachedTextEncoder(load, TextCache(folder, **options), name)  # type: ignore[arg-type]


def rows(seed: int, length: int = 9, filled: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.zeros(length, 16, dtype=dtype)
    made[:filled] = torch.randn(filled, 16, generator=torch.Generator().manual_seed(seed))
    return made


# -- the very embeddings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    cache, kept = TextCache(tmp_path), rows(1, dtype=dtype)
    kept[2] = 0  # a zero row within the prompt is one of its rows
    kept[1, 3], kept[1, 4] = float("nan"), -0.0
    cache.put(KEY, kept)
    found = cache.get(KEY)
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), kept.view(torch.uint8))
    assert cache.get(key(1)) is None
    assert (tmp_path / f"{KEY}.safetensors").stat().st_size < 600 + 4 * 16 * 4  # without the rows behind the prompt


def test_a_hit_needs_no_encoder_and_is_the_same(tmp_path: Path, encoder: TextEncoder) -> None:
    plain = encoder.encode([PROMPT, OTHER])
    loads = []
    first = cached(tmp_path, lambda: loads.append(1) or encoder)
    assert torch.equal(first.encode([PROMPT, OTHER]), plain)
    assert torch.equal(first.encode([PROMPT, OTHER]), plain)
    first.encode(["and another one"])
    assert loads == [1]
    again = cached(tmp_path, never)
    assert torch.equal(again.encode([PROMPT, OTHER]), plain)
    assert torch.equal(again.encode([OTHER]), plain[1:])
    assert torch.equal(again.encode(["  a   blue\tsquare\n"]), plain[1:])  # tidied the same
    with pytest.raises(AssertionError, match="was loaded"):
        again.encode([PROMPT, "a third"])
    with pytest.raises(AssertionError, match="was loaded"):
        cached(tmp_path, never, name="another encoder").encode([PROMPT])


def test_company_does_not_change_a_prompts_rows(tmp_path: Path, encoder: TextEncoder) -> None:
    """A hit was encoded in other company than the run that finds it."""
    calls: list[list[str]] = []

    class Spy:
        def encode(self, prompts: list[str]) -> torch.Tensor:
            calls.append(prompts)
            return encoder.encode(prompts)

    both = cached(tmp_path / "both", Spy).encode([PROMPT, OTHER, PROMPT])
    assert calls == [[PROMPT], [OTHER]]
    alone = cached(tmp_path / "alone", Spy)
    alone.encode([OTHER])
    assert torch.equal(alone.encode([PROMPT, OTHER, PROMPT]), both)
    assert torch.equal(encoder.encode([PROMPT, OTHER, PROMPT]), both)
    ids: list[int] = []
    hook = encoder.model.register_forward_pre_hook(
        lambda module, args, given: ids.append(len(given["input_ids"])), with_kwargs=True
    )
    encoder.encode([PROMPT, OTHER])
    hook.remove()
    assert ids == [1, 1]


def test_the_encoder_works_within_what_it_is_given(tmp_path: Path, encoder: TextEncoder) -> None:
    log: list[str] = []

    @contextmanager
    def using(given: object):
        assert given is encoder
        log.append("in")
        yield
        log.append("out")

    made = CachedTextEncoder(lambda: encoder, TextCache(tmp_path), "name", using=using)
    made.encode([PROMPT, OTHER])
    made.encode([PROMPT])
    assert log == ["in", "out"]


# -- what the name of an encoder depends on ------------------------------------------------------------------------


def test_identity_follows_files_and_choices(tmp_path: Path) -> None:
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    size = BEGINNING + 40 * SAMPLE
    content = bytearray(os.urandom(size))
    file = folder / "model.safetensors"

    def named(*choices: object) -> str:
        file.write_bytes(content)
        os.utime(file, (1_000_000_000, 1_000_000_000))
        return identity([folder], *choices)

    base = named("bf16")
    assert base == named("bf16")
    names = {base, named("fp16"), named("bf16", "cuda")}
    for place in (0, BEGINNING - 1, BEGINNING, size - 1, size - SAMPLE):  # also a changed value deep in the file
        content[place] ^= 1
        names.add(named("bf16"))
        content[place] ^= 1
    content.append(0)
    names.add(named("bf16"))
    content.pop()
    assert named("bf16") == base
    os.utime(file, (1_000_000_001, 1_000_000_001))
    names.add(identity([folder], "bf16"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    (folder / "tokenizer.json").write_text("{}")
    names.add(identity([folder], "bf16"))
    assert len(names) == 11
    with pytest.raises(FileNotFoundError):
        identity([tmp_path / "nowhere"])


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.truncate(20_000_000_000)  # sparse: 20 GB of nothing
    began = time.perf_counter()
    identity([file])
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "where", ["a diffusers folder", "../tokenizer", "tokenizer", "google/umt5-xxl", "one named", "the model's"]
)
def test_another_tokenizer_is_another_encoder(tmp_path: Path, where: str) -> None:
    model = tmp_path / "model"
    tiny.write_pipeline(model)
    given, options = model, {}
    words = model / "tokenizer"
    if where != "a diffusers folder":
        given = next((model / "text_encoder").glob("*.safetensors"))
    if where in ("tokenizer", "google/umt5-xxl", "one named"):
        moved = (tmp_path if where == "one named" else given.parent) / where
        moved.parent.mkdir(parents=True, exist_ok=True)
        words = words.rename(moved)
    if where == "one named":
        options["tokenizer"] = words
    if where == "the model's":
        given = given.rename(tmp_path / given.name)
        options["tokenizer_of"] = model

    def encoded() -> torch.Tensor:
        made = text_encoder(given, torch.float32, Memory("cpu"), tmp_path / "kept", **options)
        return made.encode(["hello"])[0]

    before = encoded()
    table = json.loads((words / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    vocabulary["<0x68>"], vocabulary["<0x65>"] = vocabulary["<0x65>"], vocabulary["<0x68>"]
    (words / "tokenizer.json").write_text(json.dumps(table))
    after = encoded()
    assert not torch.equal(after, before)
    assert torch.equal(after, weights.load_text_encoder(given, torch.float32, **options).encode(["hello"])[0])


# -- files that are damaged, lost, too many ------------------------------------------------------------------------

DAMAGE = {
    "cut short": lambda data: data[:-7],
    "empty": lambda data: b"",
    "a changed value": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "a changed length": lambda data: data.replace(b'"text_len":"9"', b'"text_len":"2"'),
    "another format": lambda data: data.replace(b'"format":"1"', b'"format":"0"'),
    "no metadata": lambda data: data.replace(b"__metadata__", b"__metadatb__"),
    "something else": lambda data: os.urandom(500),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_none_and_is_replaced(tmp_path: Path, damage: str) -> None:
    cache, kept = TextCache(tmp_path), rows(1)
    cache.put(KEY, kept)
    file = tmp_path / f"{KEY}.safetensors"
    data = file.read_bytes()
    changed = DAMAGE[damage](data)
    assert changed != data
    file.write_bytes(changed)
    assert cache.get(KEY) is None
    cache.put(KEY, kept)
    found = cache.get(KEY)
    assert found is not None
    assert torch.equal(found, kept)


def test_an_entry_that_is_a_folder_or_a_place_that_is_none(tmp_path: Path, encoder: TextEncoder) -> None:
    cache = TextCache(tmp_path)
    (tmp_path / f"{KEY}.safetensors").mkdir()
    assert cache.get(KEY) is None
    cache.put(KEY, rows(1))  # no error
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    plain = encoder.encode([PROMPT])
    assert torch.equal(cached(blocked, lambda: encoder).encode([PROMPT]), plain)
    assert blocked.read_text() == "not a folder"


def test_the_folder_may_go_at_any_time(tmp_path: Path) -> None:
    import shutil

    cache = TextCache(tmp_path / "deep" / "er")
    for _ in range(2):
        cache.put(KEY, rows(1))
        assert cache.get(KEY) is not None
        shutil.rmtree(tmp_path / "deep")
        assert cache.get(KEY) is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    cache.put(key(0), rows(0))
    size = (tmp_path / f"{key(0)}.safetensors").stat().st_size
    cache = TextCache(tmp_path, limit=4 * size + size // 2)
    for number in range(4):
        cache.put(key(number), rows(number))
        os.utime(tmp_path / f"{key(number)}.safetensors", (1_000_000_000 + number,) * 2)
    assert cache.get(key(0)) is not None  # used just now
    cache.put(key(4), rows(4))
    assert sorted(path.stem for path in tmp_path.iterdir()) == [key(0), key(2), key(3), key(4)]
    cache.put(key(5), rows(5, length=2000, filled=2000))  # more than the whole folder may take
    assert sorted(path.stem for path in tmp_path.iterdir()) == [key(0), key(2), key(3), key(4)]


def test_other_files_are_left_alone_and_abandoned_ones_are_not(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, limit=2000)
    old = time.time() - ABANDONED - 10
    ours = {f".{KEY}.{'0a' * 6}.safetensors": old, f".{KEY}.{'0b' * 6}.safetensors": None, f"{key(7)}.safetensors": old}
    foreign = [
        "my_trained_lora.safetensors", f"{KEY}.txt", f"{KEY[1:]}.safetensors", f"{KEY.upper()}.safetensors",
        f"x{KEY}.safetensors", f"{KEY}.safetensors.bak", ".hidden.safetensors", f".{KEY}.safetensors",
        f".{KEY}.{'0a' * 5}.safetensors", ".hid",
    ]  # fmt: skip
    for name, when in [*ours.items(), *((name, old) for name in foreign)]:
        (tmp_path / name).write_bytes(b"x" * 5000)
        if when:
            os.utime(tmp_path / name, (when, when))
    cache.put(KEY, rows(1))
    assert {path.name for path in tmp_path.iterdir()} == {
        *foreign, f".{KEY}.{'0b' * 6}.safetensors", f"{KEY}.safetensors",
    }  # fmt: skip


def test_what_others_keep_there_does_not_count(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"x" * 50_000)
    os.utime(model, (time.time() + 1000,) * 2)  # the last to go
    cache = TextCache(tmp_path, limit=20_000)
    for number in range(3):
        cache.put(key(number), rows(number))
    assert all(cache.get(key(number)) is not None for number in range(3))
    assert model.exists()


def test_a_pipeline_keeps_prompts_in_a_folder_of_their_own(tmp_path: Path) -> None:
    lora = tmp_path / "my_trained_lora.safetensors"
    lora.write_bytes(b"x" * 5000)
    made = text_encoder(NANO, torch.float32, Memory("cpu"), tmp_path)
    made.encode([PROMPT])
    assert lora.read_bytes() == b"x" * 5000
    assert {path.name for path in tmp_path.iterdir()} == {lora.name, FOLDER}
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


WORKER = """
import sys; sys.path.append(sys.argv[1])
import torch
from pathlib import Path
from wan_local.encoders.cache import TextCache
cache, found = TextCache(sys.argv[2], limit=6000), 0
for turn in range(60):
    number = turn * int(sys.argv[3]) % 11
    rows = torch.zeros(9, 16); rows[:4] = number + 1
    kept = cache.get(f"{number:064x}")
    assert kept is None or torch.equal(kept, rows), number
    found += kept is not None
    cache.put(f"{number:064x}", rows)
print(found)
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ROOT), str(tmp_path), str(stride)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for stride in (1, 3, 5)
    ]  # fmt: skip
    for worker in workers:
        out, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err
        assert int(out) > 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6000


# -- a whole pipeline ----------------------------------------------------------------------------------------------


def test_frames_are_the_same_and_the_encoder_is_not_loaded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
    quick = {"length": 5, "steps": 2, "seed": 7, "guidance": 2.0}

    def made(cache: Path | None, prompt: str = PROMPT, **options: object) -> torch.Tensor:
        pipeline = Pipeline.from_pretrained(NANO, device="cpu", cache=cache, **options)
        return pipeline(*images, prompt, **quick)

    plain, other = made(None), made(None, OTHER)
    assert not torch.equal(plain, other)
    assert torch.equal(made(tmp_path), plain)
    assert torch.equal(made(tmp_path, OTHER), other)  # half of it is kept: the negative prompt
    opened: list[object] = []
    monkeypatch.setattr(parts, "load_text_encoder", lambda *args, **options: opened.append(args))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *args, **options: opened.append(args))
    assert torch.equal(made(tmp_path), plain)
    assert torch.equal(made(tmp_path, OTHER), other)
    assert torch.equal(made(tmp_path, OTHER, offload=4), other)
    assert opened == []
    with pytest.raises(AttributeError):  # what stands for the loader gives None
        made(tmp_path, OTHER, dtype=torch.float64)
    assert len(opened) == 1
