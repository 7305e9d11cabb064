"""Who is on the device when: the parts of a pipeline come for their stage and leave it to the next.

A part rests in host memory, where it was loaded; on the device are copies that are dropped when its stage ends. On a
CPU nothing moves.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import InputError
from ..notices import tell
from ..shapes import Grid
from ..vae import Autoencoder, WanVAE
from .activations import RESERVE, unpacked_bytes
from .fitting import FittingVAE
from .offload import Offload, away_blocks
from .plan import AUTO, LARGEST, NONE, Offloading, Weights, choose_away, everything_fits
from .room import free_device_bytes, give_back, is_out_of_memory
from .storage import Guest, held_by, size_of, tensors_of
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
        self._guests: dict[int, Guest] = {}
        self._depth: Counter[int] = Counter()
        self._transformer: tuple[Any, Offload] | None = None

    def check(self, transformer: Any) -> None:
        """Raise :class:`InputError` if more blocks are to be away than the transformer has."""
        if not isinstance(self.offload, str):
            away_blocks(transformer.config.num_layers, self.offload)

    @property
    def home(self) -> torch.device:
        """Where parts are to be loaded."""
        return self.device if self.offload == NONE else torch.device("cpu")

    @contextlib.contextmanager
    def visit(self, part: Any) -> Iterator[None]:
        """Have a part (a module, or an encoder around one) on the device for a while; visits may be nested.

        An encoder for which there is no room stays in host memory and works there, slower.
        """
        module = part if isinstance(part, nn.Module) else getattr(part, "model", None)
        if self.offload == NONE or self.device.type == "cpu" or not isinstance(module, nn.Module):
            yield
            return
        key = id(module)
        self._depth[key] += 1
        try:
            if key not in self._guests and self._has_room(module, may_stay=module is not part):
                self._guests[key] = Guest(held_by(module), self.device)
            yield
        finally:
            self._depth[key] -= 1
            if not self._depth[key]:
                del self._depth[key]
                if key in self._guests:
                    self._guests.pop(key).leave()
                    give_back(self.device)

    def vae_for(self, vae: WanVAE | Autoencoder, decode_dtype: torch.dtype) -> Autoencoder:
        """What encodes and decodes with ``vae`` within the memory there is; ask within its visit."""
        return FittingVAE(vae, self.tiling, decode_dtype) if isinstance(vae, WanVAE) else vae

    def sampled(self, transformer: Any, grid: Grid, sample: Callable[[], Result]) -> Result:
        """What ``sample`` gives while the transformer is on the device; called again where memory runs out.

        Each time a fifth more of the blocks stay away, until all do. So ``sample`` must begin anew when it is called.

        Raises:
            torch.OutOfMemoryError: with all blocks away too, or where none may be.
        """
        if self._rests(transformer):
            return sample()
        blocks, more = transformer.config.num_layers, 0
        while True:
            away = min(self.away(transformer, grid) + more, blocks)
            try:
                with self.sampling(transformer, grid, away):
                    return sample()
            except Exception as error:
                if not is_out_of_memory(error) or away == blocks:
                    raise
            # Not before the error is gone: its traceback holds what was calculated until then.
            more += max(1, blocks // 5)
            tell(f"memory ran out with {away} of {blocks} blocks in host memory; sampling begins again with more there")

    @contextlib.contextmanager
    def sampling(self, transformer: Any, grid: Grid, away: int | None = None) -> Iterator[None]:
        """Have the transformer on the device, but for the blocks that are ``away``; None finds how many have to be."""
        if self._rests(transformer):
            yield
            return
        give_back(self.device)
        if self._transformer is None or self._transformer[0] is not transformer:
            self._transformer = (transformer, Offload(transformer, self.device))
        stay = self._transformer[1]
        stay.open(self.away(transformer, grid) if away is None else away)
        try:
            yield
        finally:
            stay.close()

    def _rests(self, transformer: Any) -> bool:
        """Whether nothing of it moves: it is where it works, or has a keeper of its own."""
        at_home = self.offload == NONE or (self.offload == AUTO and self.device.type == "cpu")
        return at_home or not isinstance(transformer, nn.Module)

    def away(self, transformer: Any, grid: Grid) -> int:
        """How many blocks are away for a clip of this size, as things stand now."""
        if not isinstance(self.offload, str):
            return self.offload
        free = free_device_bytes(self.device)
        if free is None:
            return 0
        return choose_away(transformer.config, weights_of(transformer, self.device), grid, free)

    def _has_room(self, module: nn.Module, may_stay: bool) -> bool:
        free = free_device_bytes(self.device)
        return not may_stay or free is None or size_of(tensors_of(module)) + RESERVE <= free


def for_model(
    path: str | PathLike[str],
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
    """
    from . import stored

    memory = Memory(device, offload, tiling)
    if memory.offload != AUTO:
        return memory
    free = free_device_bytes(device)
    found = stored.read(path, dtype, unpack=unpack, parts=parts) if free is not None else None
    if free is None or (found is not None and everything_fits(*found, LARGEST, free)):
        return Memory(device, NONE, tiling)
    return memory


def check_offload(offload: Any) -> Offloading:
    """``"auto"``, ``"none"`` or a whole number from 0, which may come as text; else :class:`InputError`."""
    if isinstance(offload, str) and offload.isascii() and offload.isdecimal():
        offload = int(offload)
    number = isinstance(offload, int) and not isinstance(offload, bool) and offload >= 0
    if not number and offload not in (AUTO, NONE):
        raise InputError(f"offload={offload!r} can't be used; use auto, none or a number of blocks such as 20")
    return offload


def weights_of(transformer: Any, device: torch.device) -> Weights:
    """Bytes of a transformer that is loaded."""
    blocks = tuple(size_of(tensors_of(block)) for block in transformer.blocks)
    dtype = transformer.dtype_of(transformer.blocks[0].self_attn.q, device)
    return Weights(
        blocks=blocks,
        rest=size_of(tensors_of(transformer)) - sum(blocks),
        itemsize=dtype.itemsize,
        unpacked=unpacked_bytes(transformer, dtype),
        compiled=transformer.compiled,
    )
