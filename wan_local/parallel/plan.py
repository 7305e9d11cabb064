"""On paper: what a split moves, what a GPU holds, how long a step takes. Bytes are exact; times rest on stated rates.

Bytes are those that leave one GPU in one step. The tests hold them to what the exchanges count while they run.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import TransformerConfig
from ..memory.activations import RESERVE, transformer_work
from ..memory.plan import LARGEST, Weights
from ..shapes import Grid
from .degrees import Degrees

FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """Bytes that leave one GPU in one step, by what they are for."""

    guidance: int = 0
    ulysses: int = 0
    ring: int = 0
    gather: int = 0
    weights: int = 0

    @property
    def all(self) -> int:
        return self.guidance + self.ulysses + self.ring + self.gather + self.weights


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuRates:
    """Rates to reckon with; every one is an assumption that whoever prints a table names.

    Attributes:
        name: of the GPU.
        flops: floating point operations a second that the whole forward reaches.
        link: bytes a second that one GPU sends to the others of its machine.
        memory: bytes of the GPU.
        network: bytes a second that one GPU sends to another machine.
    """

    name: str
    flops: float
    link: float
    memory: float = 80e9
    network: float = 12.5e9


def moved(
    config: TransformerConfig, grid: Grid, degrees: Degrees, *, itemsize: int = 2, guided: bool = True, weights: int = 0
) -> Moved:
    """Bytes that leave one GPU in one step.

    Args:
        config: sizes of the model.
        grid: of the clip.
        degrees: the split.
        itemsize: bytes of the dtype of attention.
        guided: whether a step asks for cond and uncond; they are on one half of the GPUs each if the split says so.
        weights: bytes of all weights if fsdp shards them, else 0.
    """
    forwards = 2 if guided and degrees.cfg == 1 else 1
    part = -(-grid.tokens // degrees.shards)  # tokens of a GPU, padding among them
    rows = part * config.dim * itemsize
    u, r = degrees.ulysses, degrees.ring
    exchange = 4 * rows * (u - 1) // u  # q, k, v, and the result
    around = 2 * rows * (r - 1)  # keys and values, of the heads this GPU has: rows of u GPUs, 1 / u of the heads
    head = part * config.out_dim * config.patch_size[0] * config.patch_size[1] * config.patch_size[2] * FLOAT
    velocity = config.out_dim * grid.tokens * config.patch_size[1] * config.patch_size[2] * FLOAT
    kept = weights // degrees.gpus
    return Moved(
        guidance=velocity if guided and degrees.cfg == 2 else 0,
        ulysses=forwards * config.num_layers * exchange,
        ring=forwards * config.num_layers * around,
        gather=forwards * head * (degrees.shards - 1),
        weights=forwards * kept * (degrees.gpus - 1),
    )


def gpu_bytes(config: TransformerConfig, weights: Weights, grid: Grid, degrees: Degrees, *, fsdp: bool = False) -> int:
    """Peak bytes on one GPU while it samples: its weights, and its share of the work.

    With fsdp a GPU keeps its share and has two whole blocks at a time, the one in use and the one that comes. Of two
    experts it has both; those that take turns are one, ``replace(weights, waiting=())``.
    """
    held = sum(_held(each, degrees, fsdp) for each in weights.models)
    work = transformer_work(config, grid, weights.itemsize, weights.dequantized) // degrees.shards
    return held + work


def _held(weights: Weights, degrees: Degrees, fsdp: bool) -> int:
    if not fsdp:
        return weights.transformer
    return weights.transformer // degrees.gpus + weights.rest + 2 * max(weights.blocks, default=0)


def experts_take_turns(config: TransformerConfig, weights: Weights, memory: int) -> bool:
    """Whether a GPU of ``memory`` bytes is too small for two experts and all the work of the largest usual clip."""
    work = transformer_work(config, LARGEST, weights.itemsize, weights.dequantized, compiled=weights.compiled)
    return bool(weights.waiting) and weights.transformers + work + RESERVE > memory


def step_seconds(
    flops: float, bytes_moved: Moved, degrees: Degrees, rates: GpuRates, *, guided: bool = True, machines: int = 1
) -> float:
    """Seconds of one step, with no overlap of calculating and moving: an upper bound for a good network stack.

    Args:
        flops: operations of one forward of the whole clip.
        bytes_moved: of :func:`moved`.
        degrees: the split.
        rates: of a GPU.
        guided: two forwards a step.
        machines: over how many machines the GPUs are spread; guidance and the weights of fsdp then go over the
            network, the rest stays within a machine, unless the split has no half for every machine.
    """
    calculating = 2 * flops / (rates.flops * degrees.gpus) if guided else flops / (rates.flops * degrees.shards)
    outer = bytes_moved.guidance + bytes_moved.weights
    across = rates.network if machines > 1 else rates.link
    inside = rates.network if machines > 1 and degrees.cfg < machines else rates.link
    return calculating + outer / across + (bytes_moved.all - outer) / inside
