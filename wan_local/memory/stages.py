"""Who is on the device when: the parts of a pipeline come for their stage and leave it to the next.

A part rests in host memory, where it was loaded; on the device are copies that are dropped when its stage ends. On a
CPU nothing moves.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import TypeVar

import torch
from torch import nn

from ..config import TransformerConfig
from ..errors import InputError
from ..free_memory import check_host_room, free_device_bytes, give_back, is_out_of_memory
from ..model import WanTransformer
from ..notices import tell
from ..sampling import Model
from ..shapes import Grid
from ..vae import Autoencoder, WanVAE
from ..weights.experts import Pair
from ..words import counted
from .activations import RESERVE, dequantized_bytes
from .fitting import FittingVAE
from .offload import Offload, offloaded_blocks
from .plan import AUTO, LARGEST, NONE, Offloading, Weights, choose_offloaded, everything_fits
from .storage import DeviceCopies, size_of, tensor_places, tensors_of
from .switch import Switch
from .tiles import AUTO as TILES_AUTO
from .tiles import Tiles, check_tiling

Result = TypeVar("Result")


class Memory:
    """What the parts of one pipeline do between their stages.

    Args:
        device: where the work is done.
        offload: ``"none"``: all parts were loaded there and stay. A number: parts come for their stage, and so many
            transformer blocks stay in host memory even then. ``"auto"``: as few as fit into what is free.
        tiling: side of the VAE's tiles in pixels, ``"off"``, or ``"auto"``: only where whole frames don't fit.

    Raises:
        InputError: another value.
    """

    def __init__(
        self, device: torch.device | str = "cpu", offload: Offloading = NONE, tiling: Tiles = TILES_AUTO
    ) -> None:
        self.device = torch.device(device)
        self.offload, self.tiling = check_offload(offload), check_tiling(tiling)
        self._on_device: dict[int, DeviceCopies] = {}
        self._depth: Counter[int] = Counter()
        self._offloads: dict[nn.Module, Offload] = {}  # which keep what they packed for the next run

    def check(self, config: TransformerConfig) -> None:
        """Raise :class:`InputError` if more blocks are to be offloaded than a transformer has."""
        if not isinstance(self.offload, str):
            offloaded_blocks(config.num_layers, self.offload)

    @property
    def home(self) -> torch.device:
        """Where parts are to be loaded."""
        return self.device if self.offload == NONE else torch.device("cpu")

    @contextlib.contextmanager
    def on_device(self, part: object) -> Iterator[None]:
        """Have a part (a module, or an encoder around one) on the device for a while; nested or not.

        An encoder for which there is no room stays in host memory and works there, slower.
        """
        module = part if isinstance(part, nn.Module) else getattr(part, "model", None)
        if self.offload == NONE or self.device.type == "cpu" or not isinstance(module, nn.Module):
            yield
            return
        key = id(module)
        self._depth[key] += 1
        try:
            if key not in self._on_device and self._has_room(module, may_stay=module is not part):
                self._on_device[key] = DeviceCopies(tensor_places(module), self.device)
            yield
        finally:
            self._depth[key] -= 1
            if not self._depth[key]:
                del self._depth[key]
                if key in self._on_device:
                    self._on_device.pop(key).put_back()
                    give_back(self.device)

    def vae_for(self, vae: WanVAE | Autoencoder, decode_dtype: torch.dtype) -> Autoencoder:
        """What encodes and decodes with ``vae`` within the memory there is; ask while it is there."""
        return FittingVAE(vae, self.tiling, decode_dtype) if isinstance(vae, WanVAE) else vae

    def turns(self, grid: Grid, beside: int = 0) -> Turns:
        """Whose turn it is to be on the device while a clip of ``grid`` is sampled, with so many bytes beside its usual
        work."""
        return Turns(self, grid, beside)

    @contextlib.contextmanager
    def sampling(self, transformer: WanTransformer, grid: Grid, offloaded: int | None = None) -> Iterator[None]:
        """Have the transformer on the device, but for ``offloaded`` blocks; None finds how many there must be."""
        if self.rests:
            yield
            return
        give_back(self.device)
        stay = self.stay_of(transformer)
        stay.open(self.offloaded(transformer, grid) if offloaded is None else offloaded)
        try:
            yield
        finally:
            stay.close()

    def stay_of(self, transformer: WanTransformer) -> Offload:
        """What brings this transformer to the device."""
        if transformer not in self._offloads:
            self._offloads[transformer] = Offload(transformer, self.device)
        return self._offloads[transformer]

    @property
    def rests(self) -> bool:
        """Whether no transformer moves: each works where it was loaded."""
        return self.offload == NONE or (self.offload == AUTO and self.device.type == "cpu")

    def offloaded(self, transformer: WanTransformer, grid: Grid, beside: int = 0) -> int:
        """How many blocks are offloaded for a clip of this size, with so many bytes beside its usual work, as things
        stand now."""
        if not isinstance(self.offload, str):
            return self.offload
        free = free_device_bytes(self.device)
        if free is None:
            return 0
        free += self.stay_of(transformer).ahead - beside
        return choose_offloaded(transformer.config, weights_of(transformer, self.device), grid, free)

    def _has_room(self, module: nn.Module, may_stay: bool) -> bool:
        free = free_device_bytes(self.device)
        return not may_stay or free is None or size_of(tensors_of(module)) + RESERVE <= free


class Turns:
    """The transformers of one run on the device, one at a time. See :meth:`Memory.turns`."""

    def __init__(self, memory: Memory, grid: Grid, beside: int = 0) -> None:
        self._memory, self._grid, self._beside = memory, grid, beside
        self._at_work: Model | None = None
        self._moves = False  # whether it came here for its turn
        self._offloaded, self._more = 0, 0  # blocks of it in host memory, and how many of them because memory ran out
        self._stay = contextlib.ExitStack()
        self._switch: Switch | None = None
        self._ahead: Offload | None = None  # of what came before its turn

    def bring(self, transformer: Model, then: Model | None = None, forwards: int = 1) -> None:
        """Have this one on the device, in the place of the one before.

        Args:
            transformer: that works now.
            then: the one that comes after it, if this is its last step: it comes meanwhile.
            forwards: of ``transformer`` in a step.
        """
        if transformer is not self._at_work:
            self._leave()
            self._at_work = transformer
            if isinstance(transformer, WanTransformer) and not self._memory.rests:  # others have a keeper of their own
                self._moves = True
                needed = self._memory.offloaded(transformer, self._grid, self._beside) + self._more
                self._offloaded = min(needed, transformer.config.num_layers)
                self._stay.enter_context(self._memory.sampling(transformer, self._grid, self._offloaded))
        if not self._moves or self._switch is not None:
            return
        if isinstance(transformer, WanTransformer) and isinstance(then, WanTransformer):
            leaving, coming = self._memory.stay_of(transformer), self._memory.stay_of(then)
            self._ahead = coming
            self._switch = Switch(leaving, coming, forwards)

    def run(self, sample: Callable[[], Result]) -> Result:
        """What ``sample`` gives, which brings what it works with; called again where memory runs out.

        Each time a fifth more of the blocks stay in host memory, until all do. So ``sample`` must begin anew when it is
        called.

        Raises:
            torch.OutOfMemoryError: with all blocks there too, or where none may be.
        """
        while True:
            try:
                return sample()
            except Exception as error:
                if not is_out_of_memory(error) or self._at_work is None or not self._moves:
                    raise
                blocks, offloaded = self._at_work.config.num_layers, self._offloaded
                if offloaded == blocks:
                    raise
            finally:
                self._leave()
                if self._ahead is not None:
                    self._ahead.close()
            # Not before the error is gone: its traceback holds what was calculated until then.
            self._more += max(1, blocks // 5)
            was = f"with {offloaded} of {counted(blocks, 'block')} in host memory"
            tell(f"memory ran out {was}; sampling begins again with more there")

    def _leave(self) -> None:
        if self._switch is not None:
            self._switch.close()
        self._at_work, self._moves, self._switch = None, False, None
        self._stay.close()


def for_model(
    path: str | PathLike[str] | Pair,
    dtype: torch.dtype,
    device: torch.device,
    offload: Offloading = AUTO,
    tiling: Tiles = TILES_AUTO,
    *,
    unpack: bool = False,
    parts: Mapping[str, str | PathLike[str] | None] | None = None,
) -> Memory:
    """The memory of a pipeline that is about to be loaded; ``unpack`` and ``parts`` as for :func:`.stored.read`.

    ``"auto"`` becomes ``"none"`` where nothing has to move: on a CPU, and where all parts together leave room for the
    largest usual clip.

    Raises:
        InputError: ``offload`` is not "auto", "none" or a number.
        WeightsError: a part of the model is broken.
        OutOfMemory: two experts whose converted weights are more than the host has room for.
    """
    from . import stored

    memory, free = Memory(device, offload, tiling), free_device_bytes(device)
    unknown = memory.offload == AUTO and free is not None
    found = stored.read(path, dtype, unpack=unpack, parts=parts) if unknown or isinstance(path, Pair) else None
    if memory.offload == AUTO and (free is None or (found is not None and everything_fits(*found, LARGEST, free))):
        memory = Memory(device, NONE, tiling)
    if found is not None and isinstance(path, Pair) and memory.home.type == "cpu":
        _, weights, _ = found
        converted = sum(each.converted + each.converted_blocks for each in weights.models)
        check_host_room(converted, "the two experts and what belongs to them", dtype)
    return memory


def check_offload(offload: object) -> Offloading:
    """``"auto"``, ``"none"`` or a whole number from 0, which may come as text; else :class:`InputError`."""
    if isinstance(offload, str) and offload.isascii() and offload.isdecimal():
        offload = int(offload)
    if isinstance(offload, int) and not isinstance(offload, bool) and offload >= 0:
        return offload
    if not isinstance(offload, str) or offload not in (AUTO, NONE):
        raise InputError(f"offload={offload!r} can't be used; use auto, none or a number of blocks such as 20")
    return offload


def weights_of(transformer: WanTransformer, device: torch.device) -> Weights:
    """Bytes of a transformer that is loaded."""
    blocks = tuple(size_of(tensors_of(block)) for block in transformer.blocks)
    dtype = transformer.dtype_of(transformer.get_submodule("blocks.0.self_attn.q"), device)
    return Weights(
        blocks=blocks,
        rest=size_of(tensors_of(transformer)) - sum(blocks),
        itemsize=dtype.itemsize,
        dequantized=dequantized_bytes(transformer, dtype),
        compiled=transformer.compiled,
    )
