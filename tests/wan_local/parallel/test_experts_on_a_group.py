"""Two experts on several GPUs: the velocity of the one that each step is for, both there or in turn."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.wan_local.parallel import long_clips
from tests.wan_local.parallel import split_cases as cases
from wan_local import free_memory, lora
from wan_local.denoiser import Denoiser, pair_of, velocity_of
from wan_local.errors import Cancelled, OutOfMemory
from wan_local.memory.plan import LARGEST, RESERVE, Weights
from wan_local.memory.stored import released
from wan_local.parallel import experts
from wan_local.parallel.degrees import Degrees
from wan_local.parallel.group_model import GroupTransformer, Setup, denoisers_of
from wan_local.parallel.plan import experts_take_turns, gpu_bytes
from wan_local.parallel.rank_model import Rank
from wan_local.quantised import parameter_shapes
from wan_local.ranks import Pool, RankGroup, RankInfo
from wan_local.ranks import rank as process
from wan_local.sampling import Cond
from wan_local.weights import load_transformer

GRID = cases.GRIDS["45 tokens"]
TIMESTEPS = [950.0, 900.0, 500.0, 100.0]
LOW_GUIDANCE = 1.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two experts, and a LoRA for the second."""
    place = tmp_path_factory.mktemp("experts")
    found = {name: place / f"{name}.safetensors" for name in ("high", "low", "lora")}
    state = {name: value for name, value in cases.weights().items() if "img" not in name}
    stated = {"config": cases.stated(cases.CONFIG)}
    save_file(state, found["high"], stated)
    save_file({name: value * 1.1 for name, value in state.items()}, found["low"], stated)
    torch.manual_seed(3)
    width = cases.CONFIG.dim
    pair = {"lora_A.weight": torch.randn(2, width), "lora_B.weight": torch.randn(width, 2)}
    save_file({f"diffusion_model.blocks.0.self_attn.q.{key}": value for key, value in pair.items()}, found["lora"])
    return found


def conds() -> list[Cond]:
    given = cases.inputs(GRID)
    return [Cond(condition=given["condition"], text=text) for text in given["texts"]]


@torch.no_grad()
def velocities(denoisers: list[Denoiser]) -> list[Tensor]:
    velocity = velocity_of(denoisers, conds(), cases.GUIDANCE)
    return [velocity(cases.inputs(GRID)["noise"], timestep) for timestep in TIMESTEPS]


@pytest.fixture(scope="module")
def pair(files: dict[str, Path]) -> list[Denoiser]:
    """Both of them here."""
    high, low = (load_transformer(files[name]) for name in ("high", "low"))
    lora.apply(low, [lora.Use(lora=lora.read(files["lora"], parameter_shapes(low)), strength=0.7)])
    return pair_of(high, low, 0.9, LOW_GUIDANCE)


@pytest.fixture(scope="module")
def expected(pair: list[Denoiser]) -> list[Tensor]:
    return velocities(pair)


def setup(files: dict[str, Path], **more: object) -> Setup:
    chosen = Setup(
        path=str(files["high"]), low=str(files["low"]), low_loras=((str(files["lora"]), 0.7),), boundary=0.9,
        low_guidance=LOW_GUIDANCE, gpus=2, device="cpu", dtype="float32",
    )  # fmt: skip
    return replace(chosen, **more)


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def test_each_step_is_done_by_its_expert_on_real_ranks(
    files: dict[str, Path], expected: list[Tensor], pool: Pool
) -> None:
    model = GroupTransformer(setup(files), pool)
    assert "both experts stay on each GPU (0.0 GB of weights)" in model.why
    assert worst(velocities(denoisers_of(model)), expected) <= 1e-5
    pids = model.start().pids
    again = GroupTransformer(setup(files, boundary=0.3, low_guidance=None), pool)
    assert worst(velocities(denoisers_of(again))[:1], expected[:1]) <= 1e-5
    assert again.start().pids == pids  # they know both: when each works is the caller's
    assert [told["loads"] for told in model.statistics()] == [1, 1]


def test_long_clips_keyframes_and_chains_are_those_of_one_gpu(
    files: dict[str, Path], pair: list[Denoiser], pool: Pool
) -> None:
    """Strengths are each expert's own, and a clip of a chain takes over five frames from the one before it."""
    model = GroupTransformer(setup(files), pool)
    expected = long_clips.made(pair, model.config)
    found = long_clips.worst(long_clips.made(denoisers_of(model), model.config), expected)
    print({what: f"{value:.1e}" for what, value in found.items()})
    assert max(found.values()) <= 1e-5
    assert min(long_clips.between(expected)) > 1e-3


@pytest.mark.parametrize("turns", [False, True])
def test_in_turn_they_are_on_the_gpu_one_at_a_time(files: dict[str, Path], expected: list[Tensor], turns: bool) -> None:
    info = RankInfo(
        rank=0, world=1, device="cpu:0", backend="gloo", timeout=60.0
    )  # a device: what goes there is copied
    given = {"path": str(files["high"]), "low": str(files["low"]), "dtype": "float32", "turns": turns}
    given["low_loras"] = [{"path": str(files["lora"]), "strength": 0.7}]
    rank = Rank(info, weights=given)

    def there() -> list[bool]:
        return [bool(stay.staying()) for stay in rank._stays]

    found = []
    fields = [{"condition": cond.condition, "text": cond.text, "image": None} for cond in conds()]
    for run, guidance in ((0, cases.GUIDANCE), (1, LOW_GUIDANCE)):
        rank.begin(fields, guidance, run, expert=run)
    for timestep in TIMESTEPS:
        run = int(timestep < 900)
        found.append(rank.velocity(cases.inputs(GRID)["noise"], timestep, run))
        assert there() == ([run == 0, run == 1] if turns else [])
    assert worst(found, expected) <= 1e-6
    rank.end(0)
    rank.end(1)
    assert there() == ([False, False] if turns else [])


def test_what_every_rank_converts_must_fit_together(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them sees alone that there is room for its own."""
    pair = sum(value.nbytes for name in ("high", "low") for value in load_transformer(files[name]).parameters()) // 2
    free, started = [4 * pair - 1], []
    monkeypatch.setattr(free_memory, "free_host_bytes", lambda: free[0])
    monkeypatch.setattr(RankGroup, "start", lambda group, stop=None: started.append(group))
    model = GroupTransformer(setup(files, gpus=4, dtype="bfloat16"), Pool())
    with pytest.raises(OutOfMemory, match=r"the two experts, converted by each of 4 ranks, would take .* GB of host"):
        model.start()
    assert not started
    GroupTransformer(setup(files, gpus=4), Pool()).start()  # in the dtype that they are stored in, they are mapped
    free[0] = 4 * pair
    model.start()
    assert len(started) == 2
    gpus, free[0] = ("cuda:0", "cuda:1"), 0
    for change, refused in (
        ({"turns": True}, True), ({"turns": False}, False), ({"turns": True, "ray_address": "auto"}, False),
        ({"fsdp": True, "turns": True}, False),
    ):  # fmt: skip
        with pytest.raises(OutOfMemory) if refused else contextlib.nullcontext():
            experts.check_room(setup(files, device="cuda", **change), torch.bfloat16, gpus)


class Alone:
    """A group of one rank, in this process, and the pool that has it; the user stops its third step, or none."""

    alive = True

    def __init__(self, rank: Rank, stopped: bool) -> None:
        self.rank, self.process, self.steps, self.stopped = rank, process.Rank(), 0, stopped
        self.process._served = rank

    def lease(self, *_: object) -> Alone:
        return self

    def in_use(self, stop: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def call(self, method: str, *args: object, **_: object) -> list[object]:
        found = getattr(self.rank, method)(*args)
        self.steps += method == "velocity"
        if self.stopped and self.steps == 3:
            raise Cancelled("stopped by the user")
        return [found]

    def call_first(self, *args: object, **options: object) -> object:
        return self.call(*args, **options)[0]

    def free_memory(self) -> None:
        self.process._on_free_memory()


@pytest.mark.parametrize("stopped", [False, True])
def test_no_expert_is_on_the_gpu_after_a_run(files: dict[str, Path], stopped: bool) -> None:
    """Each of the two has a run of its own; the driver takes leave of the last one, and of none after a stop."""
    info = RankInfo(rank=0, world=1, device="cpu:0", backend="gloo", timeout=60.0)
    weights = {"path": str(files["high"]), "low": str(files["low"]), "dtype": "float32", "turns": True}
    group = Alone(Rank(info, weights=weights), stopped)
    with pytest.raises(Cancelled) if stopped else contextlib.nullcontext():
        velocities(denoisers_of(GroupTransformer(setup(files, gpus=1, turns=True), group)))
    gc.collect()  # what was raised may have held the run
    assert [bool(stay.staying()) for stay in group.rank._stays] == [False, False]
    assert bool(group.rank._runs) == stopped


def test_a_gpu_that_is_too_small_for_both_has_one_at_a_time(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, weights = released(torch.bfloat16, 2, replace(cases.CONFIG, dim=5120, num_heads=40, num_layers=4))
    pair = replace(weights, waiting=(weights,))
    alone, both = (gpu_bytes(config, each, LARGEST, Degrees()) for each in (weights, pair))
    assert both - alone == weights.transformer
    assert not experts_take_turns(config, pair, both + 2 * RESERVE)
    assert experts_take_turns(config, pair, both)
    assert not experts_take_turns(config, weights, alone)  # there is no other

    def told(memory: dict[str, int], **more: object) -> str:
        monkeypatch.setattr(experts, "_memory", lambda device: memory[str(device)])
        monkeypatch.setattr(experts, "_read", lambda *_: (config, pair))
        return experts.told(setup(files, device="cuda", **more), torch.bfloat16, tuple(memory))

    small, large = both, both + 2 * RESERVE
    one = f"{weights.transformer / 1e9:.1f} GB of weights at a time"
    assert told({"cuda:0": small, "cuda:1": small}) == f"the two experts take turns on each GPU ({one})"
    assert told({"cuda:0": large, "cuda:1": large}).startswith("both experts stay on each GPU (")
    assert told({"cuda:0": large, "cuda:1": small}).endswith("; on cuda:1 in turn")
    assert "with room for them" in told({"cuda:0": 0}, ray_address="auto")
    assert "sharded over the GPUs" in told({"cuda:0": 0}, fsdp=True)


def test_fsdp_shards_both(files: dict[str, Path]) -> None:
    shards = Weights(blocks=(8_000, 8_000), rest=100)
    pair = replace(shards, waiting=(shards,))
    split = Degrees(ulysses=4)
    config = cases.CONFIG
    one, two = (gpu_bytes(config, each, LARGEST, split, fsdp=True) for each in (shards, pair))
    assert two - one == (16_100 // 4) + 100 + 2 * 8_000
