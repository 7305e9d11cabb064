"""WAN_FLF2V_MODEL, this pack's own socket: a transformer that ComfyUI moves and evicts as it does its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ...wan_local.config import TransformerConfig
from ...wan_local.denoiser import Denoiser
from ...wan_local.encoders.cache import identity
from ...wan_local.lora import Lora
from ...wan_local.memory.activations import RESERVE, dequantized_bytes, sparse_work, transformer_work
from ...wan_local.model import WanTransformer
from ...wan_local.parallel.setup import Setup
from ...wan_local.quantised import parameter_shapes
from ...wan_local.shapes import Grid
from ...wan_local.weights import experts
from .. import host
from .model_loras import LorasBeside, split
from .model_speed import Approximated

Model = host.io.Custom("WAN_FLF2V_MODEL")


class WanModel(Approximated):
    """The value on a ``WAN_FLF2V_MODEL`` wire: a transformer in the host's care.

    ``patcher`` and ``get_models`` are where the host looks for models it may evict. No weights are copied or
    moved here; the host does that. ``setup`` is what it was made from, so that other GPUs can make it again; a loader
    knows.
    """

    def __init__(self, transformer: WanTransformer, setup: Setup | None = None) -> None:
        host.stop_between_layers(transformer)
        self.patcher = host.hold(transformer, host.compute_device(), host.offload_device())
        self._beside = LorasBeside(transformer)
        self.setup = setup

    def get_models(self) -> list[Any]:
        return [self.patcher, *self._beside.patchers]

    @property
    def transformer(self) -> WanTransformer:
        return self.patcher.model

    @property
    def level(self) -> str | None:
        """ "high" or "low", where its file's name says that it is the expert for that noise."""
        return None if self.setup is None else experts.level_of(self.setup.path)

    @property
    def named(self) -> str | None:
        """A name that no other weights, LoRAs or options have; None where nobody knows what it was made from."""
        return None if self.setup is None else name_of(self.setup)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Official parameter name to shape."""
        return parameter_shapes(self.transformer)

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def parameter(self, name: str) -> Tensor:
        """A parameter that belongs to no layer, with the LoRAs of this value on it and no others."""
        return host.parameter(self.patcher, name)

    def load(self, grid: Grid, batch: int = 1) -> WanTransformer:
        """Bring the weights to the device, with room to run ``batch`` clips of ``grid``; call it before every run."""
        beside = sparse_work(self.transformer.config, grid, self.approximations.sparse)
        work = batch * (work_bytes(self.transformer, grid) + beside) + RESERVE
        host.load(self.patcher, work, beside=self._beside.patchers)
        self._beside.switch_on()
        return self.transformer

    def transformer_for(self, grid: Grid, batch: int = 1) -> TransformerLoadedAtUse:
        """The library's transformer for ``batch`` clips of ``grid``."""
        return TransformerLoadedAtUse(self, grid, batch)

    def denoisers(self, grid: Grid, batch: int = 1) -> list[Denoiser]:
        """What samples ``batch`` clips of ``grid``."""
        return [Denoiser(transformer=self.transformer_for(grid, batch))]

    def with_lora(self, lora: Lora, strength: float) -> WanModel:
        """The same weights with a LoRA on top. The host adds it where it keeps the weights, and takes it off again;
        what is about quantised weights acts beside them."""
        changed = copy.copy(self)
        if self.setup is not None:
            changed.setup = self.setup.with_lora(lora.path, strength)
        beside, lora = split(self.transformer, lora)
        if beside.deltas:
            changed._beside = self._beside.with_lora(beside, strength)
        layers = {
            f"{module}.{name}"
            for module, owner in self.transformer.named_modules()
            if not any(owner.children())
            for name, _ in owner.named_parameters(recurse=False)
        }
        patches, replaced = {}, {}
        for name, delta in lora.deltas.items():
            if name in layers:
                patches[name] = host.patch(delta)
            else:
                base = self.parameter(name)
                value = delta.applied(base.float(), strength).to(base.dtype)
                replaced[name] = torch.nn.Parameter(value, requires_grad=False)
        changed.patcher = host.patched(self.patcher, patches, strength, replaced)
        return changed

    def __repr__(self) -> str:
        config = self.transformer.config
        return f"<Wan transformer, {config.num_layers} blocks of width {config.dim}>"


class TransformerLoadedAtUse:
    """A :class:`WanModel` as the library's transformer, brought to the device when its turn in a run begins: before
    it, and between two clips of a chain, the host may take it off again, and its LoRAs with it."""

    def __init__(self, model: WanModel, grid: Grid, batch: int) -> None:
        self._model, self._grid, self._batch = model, grid, batch

    @property
    def config(self) -> TransformerConfig:
        return self._model.transformer.config

    def come(self) -> None:
        """See :class:`wan_local.sampling.ComesItself`."""
        self._model.load(self._grid, self._batch)

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        return self._model.transformer(*inputs, **options)


def name_of(setup: Setup) -> str:
    """See :attr:`WanModel.named`; the same on any number of GPUs, which make the same frames."""
    files = [path for path, loras in setup.models for path in (path, *(lora for lora, _ in loras))]
    return identity(files, setup.on_one_gpu())


def work_bytes(transformer: WanTransformer, grid: Grid) -> int:
    """What one forward of batch 1 needs besides the weights, those that are cast or dequantized for a call among it."""
    dtype = transformer.compute_dtype or torch.float32
    dequantized = dequantized_bytes(transformer, dtype)
    return transformer_work(transformer.config, grid, dtype.itemsize, dequantized, compiled=transformer.compiled)
