"""Parts take turns: each is on the device for its stage alone, and the frames are those of a run without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wan_local import free_memory, notices
from wan_local.denoiser import Denoiser
from wan_local.errors import Cancelled, InputError
from wan_local.generate import Pipeline
from wan_local.memory import Memory, check_offload, for_model
from wan_local.memory import stages as stages_module
from wan_local.memory.activations import RESERVE, transformer_work
from wan_local.memory.plan import resident_bytes
from wan_local.memory.storage import tensors_of
from wan_local.progress import Progress
from wan_local.settings import Settings
from wan_local.shapes import Grid

from .conftest import inputs, make

NANO = Path(__file__).parents[3] / "weights" / "nano"
QUICK = {"length": 5, "steps": 2, "seed": 7, "width": 64, "height": 64, "guidance": 2.0}
GRID = Grid(frames=5, height=64, width=64)


class Encoder:
    """As the encoders of a pipeline: a network within."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.model[0].weight = nn.Parameter(self.model[0].weight.detach())
        self.tied = self.model[0].weight
        self.model.register_parameter("again", self.tied)


def kinds(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in tensors_of(module)}


@pytest.mark.parametrize("offload", [0, 20, "auto"])
def test_a_part_visits_and_leaves_its_own_tensors(offload: str | int) -> None:
    encoder, memory = Encoder(), Memory("meta", offload)
    before = {name: tensor for name, tensor in encoder.model.state_dict(keep_vars=True).items()}
    with memory.on_device(encoder):
        assert kinds(encoder.model) == {"meta"}
        assert encoder.model.again is encoder.model[0].weight  # tied weights stay tied
        with memory.on_device(encoder):
            assert kinds(encoder.model) == {"meta"}
        assert kinds(encoder.model) == {"meta"}  # the inner one's end is not the outer one's
    after = encoder.model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    with pytest.raises(Cancelled), memory.on_device(encoder.model):
        raise Cancelled("stopped")
    assert kinds(encoder.model) == {"cpu"}


def test_nothing_moves_without_offload_or_on_a_cpu() -> None:
    for memory in (Memory("meta", "none"), Memory("cpu", "auto"), Memory("cpu", 3)):
        encoder = Encoder()
        with memory.on_device(encoder), memory.on_device(None), memory.on_device(object()):
            assert kinds(encoder.model) == {"cpu"}
    assert Memory("meta", "none").home.type == "meta"
    assert Memory("meta", 0).home.type == Memory("meta", "auto").home.type == "cpu"


def test_an_encoder_without_room_works_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: RESERVE + 90)
    encoder, memory = Encoder(), Memory("meta", 0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(encoder.model))
    assert size > 90
    with memory.on_device(encoder):
        assert kinds(encoder.model) == {"cpu"}
    with memory.on_device(encoder.model):  # a part that can't work elsewhere is let to try
        assert kinds(encoder.model) == {"meta"}
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: RESERVE + size)
    with memory.on_device(encoder):
        assert kinds(encoder.model) == {"meta"}


@torch.no_grad()
def test_the_transformer_is_there_for_sampling_alone() -> None:
    model, memory = make(), Memory("meta", 5)
    model.attend = lambda q, k, v: torch.empty_like(q)
    for _ in range(2):
        with memory.sampling(model, GRID):
            offloaded = {i for i, block in enumerate(model.blocks) if kinds(block) == {"cpu"}}
            assert len(offloaded) == 5
            assert model(*inputs(device="meta")).device.type == "meta"
        assert kinds(model) == {"cpu"}
    with pytest.raises(Cancelled), memory.sampling(model, GRID):
        raise Cancelled("stopped")
    assert kinds(model) == {"cpu"}
    assert not any("forward" in vars(block) for block in model.blocks)


def test_auto_takes_away_as_little_as_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    model, memory = make(), Memory("meta", "auto")
    weights = stages_module.weights_of(model, torch.device("meta"))
    assert weights.transformer == sum(p.numel() * p.element_size() for p in model.parameters())
    assert memory.offloaded(model, GRID) == 0  # nobody knows what is free
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: 10**12)
    assert memory.offloaded(model, GRID) == 0
    work = transformer_work(model.config, GRID, weights.itemsize)
    for offloaded in (3, 4, 6):
        free = resident_bytes(weights, offloaded) + work + RESERVE
        monkeypatch.setattr(stages_module, "free_device_bytes", lambda device, free=free: free)
        assert memory.offloaded(model, GRID) == offloaded
        assert memory.offloaded(model, GRID, beside=1) == offloaded + 1
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: 0)
    assert memory.offloaded(model, GRID) == 7


@pytest.mark.parametrize(("fails", "offloaded"), [(0, [2]), (1, [2, 3]), (9, [2, 3, 4, 5, 6, 7])])
def test_sampling_begins_again_with_more_blocks_away(fails: int, offloaded: list[int]) -> None:
    model, turns, seen, told = make(), Memory("meta", 2).turns(GRID), [], []

    def sample() -> str:
        turns.bring(model)
        seen.append(sum(next(block.parameters()).device.type == "cpu" for block in model.blocks))
        if len(seen) <= fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "latents"

    with notices.listening(told.append):
        if fails > 5:
            with pytest.raises(torch.OutOfMemoryError):
                turns.run(sample)
        else:
            assert turns.run(sample) == "latents"
    assert seen == offloaded
    assert [f"with {count} of 7 blocks" in text for count, text in zip(offloaded, told, strict=False)] == [True] * len(
        told
    )
    assert len(told) == len(offloaded) - 1
    assert kinds(model) == {"cpu"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("else"), Cancelled("stop")])
def test_what_more_blocks_away_cannot_mend_is_raised_at_once(error: Exception) -> None:
    calls, model = [], make()
    turns = Memory("meta", "none" if isinstance(error, torch.OutOfMemoryError) else 2).turns(GRID)

    def sample() -> None:
        turns.bring(model)
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        turns.run(sample)
    assert calls == [1]


def test_of_two_transformers_one_is_there_at_a_time() -> None:
    high, low, turns, seen = make(), make(), Memory("meta", 2).turns(GRID), []

    def sample() -> None:
        for each in (high, high, low):
            turns.bring(each)
            seen.append((kinds(high), kinds(low)))

    turns.run(sample)
    there, home = {"meta", "cpu"}, {"cpu"}  # two blocks stay in host memory
    assert seen == [(there, home), (there, home), (home, there)]
    assert kinds(high) == kinds(low) == home


def test_auto_becomes_none_where_nothing_has_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("meta")
    assert for_model(NANO, torch.float32, torch.device("cpu"), "auto").offload == "none"
    assert for_model(NANO, torch.float32, torch.device("cpu"), 3).offload == 3
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: 80 * 10**9)
    assert for_model(NANO, torch.bfloat16, device, "auto").offload == "none"
    monkeypatch.setattr(stages_module, "free_device_bytes", lambda device: 10**9)
    assert for_model(NANO, torch.bfloat16, device, "auto").offload == "auto"
    assert for_model(NANO, torch.bfloat16, device, "none").offload == "none"


@pytest.mark.parametrize("wrong", ["all", "-1", "1.5", "", -1, 2.0, True, None])
def test_wrong_ways_of_offloading(wrong: object) -> None:
    with pytest.raises(InputError, match=r"offload=.* can't be used; use auto, none or a number of blocks"):
        check_offload(wrong)


def test_ways_of_offloading() -> None:
    assert [check_offload(way) for way in ("auto", "none", "12", 0, 40)] == ["auto", "none", 12, 0, 40]


def test_free_memory_of_the_host() -> None:
    free = free_memory.free_host_bytes()
    assert 0 < free < 10**14
    assert not free_memory.host_has_room(10**16)
    assert free_memory.host_has_room(0) or free < free_memory.HOST_RESERVE
    assert free_memory.free_device_bytes(torch.device("cpu")) is None


# -- a whole pipeline ---------------------------------------------------------------------------------------------


def images() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(3, 64, 64), torch.rand(3, 64, 64)


@pytest.fixture(scope="module")
def resident() -> torch.Tensor:
    return Pipeline.from_pretrained(NANO, device="cpu", offload="none")(*images(), "a red disc", **QUICK)


@pytest.mark.parametrize("offload", [0, 3, 6, "auto"])
def test_frames_are_the_same_with_and_without(resident: torch.Tensor, offload: str | int) -> None:
    pipeline = Pipeline.from_pretrained(NANO, device="cpu", offload=offload)
    assert torch.equal(pipeline(*images(), "a red disc", **QUICK), resident)
    assert torch.equal(pipeline(*images(), "a red disc", **QUICK), resident)


def test_a_stopped_run_leaves_the_pipeline_sound(resident: torch.Tensor) -> None:
    pipeline = Pipeline.from_pretrained(NANO, device="cpu", offload=6)

    def stop(progress: Progress) -> None:
        if progress.stage == "sample" and progress.done == 1:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        pipeline(*images(), "a red disc", on_progress=stop, **QUICK)
    assert not any("forward" in vars(block) for block in pipeline.transformer.blocks)
    assert torch.equal(pipeline(*images(), "a red disc", **QUICK), resident)


def test_a_run_out_of_memory_in_the_middle_gives_the_same_frames(resident: torch.Tensor) -> None:
    """The sampler has a history by then, which must not be the next try's."""
    pipeline, calls, told = Pipeline.from_pretrained(NANO, device="cpu", offload=0), [], []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.transformer.register_forward_pre_hook(fail)
    with notices.listening(told.append):
        frames = pipeline(*images(), "a red disc", **QUICK)
    assert torch.equal(frames, resident)
    assert told == ["memory ran out with 0 of 6 blocks in host memory; sampling begins again with more there"]


def test_more_blocks_than_the_model_has_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="offload=7 can't be used: the model has 6 blocks; use 0 to 6"):
        Pipeline.from_pretrained(NANO, device="cpu", offload=7)


class Told(Memory):
    """Tells who came and left."""

    def __init__(self) -> None:
        super().__init__("cpu", 2)
        self.log: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def on_device(self, part: Any) -> Iterator[None]:
        name = type(part).__name__
        self.log.append(("comes", name))
        with super().on_device(part):
            try:
                yield
            finally:
                self.log.append(("leaves", name))

    @contextlib.contextmanager
    def sampling(self, transformer: Any, grid: Grid, offloaded: int | None = None) -> Iterator[None]:
        self.log.append(("comes", "WanTransformer"))
        with super().sampling(transformer, grid, offloaded):
            yield
        self.log.append(("leaves", "WanTransformer"))


def test_each_part_leaves_before_the_next_comes() -> None:
    loaded, memory = Pipeline.from_pretrained(NANO, device="cpu"), Told()
    parts = (loaded.transformer, loaded.vae, loaded.text_encoder, loaded.image_encoder)
    pipeline = Pipeline([Denoiser(transformer=parts[0])], *parts[1:], device="cpu", memory=memory)
    where: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(*_: object) -> None:
            where.setdefault(name, len(memory.log))

        module.register_forward_pre_hook(note)

    watch("WanTransformer", parts[0])
    watch("TextEncoder", parts[2].model)
    watch("ImageEncoder", parts[3].model)
    sampled = pipeline.generate(*images(), "a red disc", Settings(**QUICK))
    list(pipeline.decode_stream(sampled))
    order = ["TextEncoder", "ImageEncoder", "WanVAE", "WanTransformer", "WanVAE"]
    assert memory.log == [(what, name) for name in order for what in ("comes", "leaves")]
    assert len(where) == 3
    for name, at in where.items():  # it worked while it was there
        assert memory.log[at - 1] == ("comes", name)


def test_an_abandoned_decode_lets_the_vae_go() -> None:
    loaded, memory = Pipeline.from_pretrained(NANO, device="cpu"), Told()
    parts = (loaded.transformer, loaded.vae, loaded.text_encoder, loaded.image_encoder)
    pipeline = Pipeline([Denoiser(transformer=parts[0])], *parts[1:], device="cpu", memory=memory)
    sampled = pipeline.generate(*images(), "a red disc", Settings(**QUICK))
    frames = pipeline.decode_stream(sampled)
    next(frames)
    frames.close()
    assert memory.log[-2:] == [("comes", "WanVAE"), ("leaves", "WanVAE")]
