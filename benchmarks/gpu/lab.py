"""What every part works with: sizes, random weights, clocks and memory of the device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wan_local.attention import sdpa
from wan_local.config import WAN_FLF2V_14B, WAN_VAE, TransformerConfig, VAEConfig
from wan_local.model import WanTransformer
from wan_local.model.blocks import Block, Context
from wan_local.quantised.matmul import has_float8_units
from wan_local.shapes import Grid
from wan_local.speed import random_context

from .report import Report

GIB = 1e9
TOY_TRANSFORMER = TransformerConfig(
    dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=64, text_len=32, image_dim=64, image_tokens=34
)


class OutOfTime(Exception):
    """The minutes that were given are used up."""


@dataclass
class Lab:
    """The device, the sizes and the time there is.

    Attributes:
        device: where everything runs.
        toy: whether sizes are small enough for a CPU; the figures then say nothing.
        seconds: there are in all.
        report: where results go.
        part: the one that runs.
    """

    device: torch.device
    toy: bool
    seconds: float
    report: Report
    part: str = ""

    @property
    def config(self) -> TransformerConfig:
        """Of the transformer: the released 14B model."""
        return TOY_TRANSFORMER if self.toy else WAN_FLF2V_14B

    @property
    def vae_config(self) -> VAEConfig:
        return VAEConfig(dim=4) if self.toy else WAN_VAE

    @property
    def grids(self) -> dict[str, Grid]:
        """The two sizes everything is measured at, the large one first."""
        if self.toy:
            return {"720p": Grid(frames=5, height=64, width=64), "480p": Grid(frames=5, height=32, width=64)}
        return {"720p": Grid(frames=81, height=720, width=1280), "480p": Grid(frames=81, height=480, width=832)}

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def has_float8(self) -> bool:
        return has_float8_units(self.device)

    def tell(self, name: str, value: Any, unit: str = "", **about: Any) -> None:
        """Report one result of this part."""
        self.report.add(self.part, name, value, unit, **about)

    # -- time ------------------------------------------------------------------------------------------------------

    def need(self, seconds: float) -> None:
        """Raise :class:`OutOfTime` unless that much is left."""
        if not self.toy and self.seconds - (time.monotonic() - self.report.began) < seconds:
            raise OutOfTime

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any], rounds: int = 2, warm: int = 1) -> float:
        """Seconds a round, after ``warm`` rounds that don't count; at toy size of one round alone."""
        rounds, warm = (1, 0) if self.toy else (rounds, warm)
        for _ in range(warm):
            work()
        self.wait()
        began = time.perf_counter()
        for _ in range(rounds):
            work()
        self.wait()
        return (time.perf_counter() - began) / rounds

    # -- memory ----------------------------------------------------------------------------------------------------

    def clear(self) -> float:
        """Give back what nobody holds and begin to look for a peak; GB that are still in use."""
        if not self.on_gpu:
            return 0.0
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / GIB

    def peak(self) -> float:
        """GB of tensors at most since :meth:`clear`."""
        return torch.cuda.max_memory_allocated() / GIB if self.on_gpu else 0.0

    def reserved(self) -> float:
        """GB that the allocator took at most since :meth:`clear`."""
        return torch.cuda.max_memory_reserved() / GIB if self.on_gpu else 0.0

    # -- things to measure ------------------------------------------------------------------------------------------

    def noise(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=dtype)

    def transformer(self, dtype: torch.dtype, layers: int | None = None, operations: Any = nn) -> WanTransformer:
        """With random weights; torch's own attention, whatever else is installed."""
        config = self.config if layers is None else replace(self.config, num_layers=layers)
        with torch.device("meta"):
            model = WanTransformer(config, operations, attend=sdpa.attend)
        return self.filled(model, dtype)

    def block(self, dtype: torch.dtype, operations: Any = nn) -> Block:
        with torch.device("meta"):
            block = Block(self.config, operations)
        return self.filled(block, dtype)

    def filled(self, model: Any, dtype: torch.dtype) -> Any:
        """A model from the meta device with weights that keep numbers sane, made on this device."""
        dice = torch.Generator(device=self.device).manual_seed(0)
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is None:
                    continue
                weight = torch.empty(parameter.shape, dtype=dtype, device=self.device)
                is_norm = isinstance(module, nn.LayerNorm | nn.RMSNorm) and name == "weight"
                if is_norm or name == "gamma":
                    weight.fill_(1)
                elif name == "bias":
                    weight.zero_()
                else:
                    spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
                    weight.normal_(0, spread, generator=dice)
                module._parameters[name] = nn.Parameter(weight, requires_grad=False)
        return model.eval()

    def inputs(self, grid: Grid, dtype: torch.dtype, device: torch.device | str | None = None) -> tuple[Tensor, ...]:
        """Latents, timestep, text and image embeddings of one forward; the same every time."""
        config, dice = self.config, torch.Generator().manual_seed(1)
        shapes = (
            (1, config.in_dim, *grid.latent_shape),
            (1, config.text_len, config.text_dim),
            (1, config.image_tokens, config.image_dim),
        )
        latents, text, image = (torch.randn(shape, generator=dice).to(device or self.device) for shape in shapes)
        return latents, torch.tensor([500.0], device=device or self.device), text.to(dtype), image.to(dtype)

    def context(self, grid: Grid, dtype: torch.dtype = torch.bfloat16) -> Context:
        """What a block reads besides the tokens."""
        return random_context(self.config, grid, dtype, self.device, sdpa.attend)


def off_by(got: Tensor, expected: Tensor) -> float:
    """Relative L2 error."""
    right = expected.detach().double()
    wide = got.detach().to(right.device).double()
    return ((wide - right).norm() / right.norm()).item()


def kind(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
