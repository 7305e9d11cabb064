"""Weights as raw storage: where every tensor lies in one flat buffer, and how a module gets other tensors.

Nothing here knows what a layer is: parameters and buffers of any dtype (fp8 and packed bytes too) are moved as they
are, with their shapes and strides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ALIGN = 256  # bytes; what CUDA's own allocations start at, and a multiple of every item size


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor lies in a flat buffer."""

    start: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, flat: Tensor) -> Tensor:
        """The tensor in this part of ``flat``, which is uint8."""
        part = flat[self.start : self.start + self.size].view(self.dtype)
        return part.as_strided(self.shape, self.stride)


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of several tensors one behind another, and the bytes they take in all."""

    places: tuple[Place, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Held:
    """One tensor of a module, and every place in the module's tables where it stands (tied weights have several)."""

    rest: Tensor
    tables: list[tuple[dict[str, Any], str]]

    def put(self, tensor: Tensor) -> Tensor:
        """Let another tensor stand in its places; return it as it stands there."""
        if isinstance(self.rest, nn.Parameter) and not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=self.rest.requires_grad)
        for table, name in self.tables:
            table[name] = tensor
        return tensor


def held_by(module: nn.Module) -> list[Held]:
    """Every parameter and buffer of a module and those within it."""
    found: dict[int, Held] = {}
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    found.setdefault(id(tensor), Held(tensor, [])).tables.append((table, name))
    return list(found.values())


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Every parameter and buffer of a module once, tied ones too."""
    return [held.rest for held in held_by(module)]


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the values in all."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def layout(tensors: Iterable[Tensor]) -> Layout:
    """Place tensors in one buffer. Dense strides are kept, others become contiguous."""
    places, end = [], 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        stride = torch.empty_like(tensor, device="meta").stride()
        places.append(Place(end, size, tensor.dtype, tuple(tensor.shape), stride))
        end += -(-size // ALIGN) * ALIGN
    return Layout(tuple(places), end)


class HostBlock:
    """One block's weights where they rest, in host memory.

    Attributes:
        layout: places in a flat buffer.
        flat: the buffer that holds them all, or None while they lie where they were loaded.
    """

    def __init__(self, block: nn.Module) -> None:
        self.held = held_by(block)
        self.layout = layout(held.rest for held in self.held)
        self.flat: Tensor | None = None

    def is_current(self, block: nn.Module) -> bool:
        """Whether the block has these very tensors at rest (a merged LoRA replaces some)."""
        now = tensors_of(block)
        return len(now) == len(self.held) and all(a is b.rest for a, b in zip(now, self.held, strict=True))

    def pack(self) -> Tensor:
        """Gather the weights into one buffer, which is one copy to the device; what held them before is let go."""
        if self.flat is None:
            flat = torch.empty(self.layout.size, dtype=torch.uint8)
            packed = []
            for held, place in zip(self.held, self.layout.places, strict=True):
                view = place.view(flat)
                view.copy_(held.rest)
                packed.append(Held(held.put(view), held.tables))
            self.held, self.flat = packed, flat
        return self.flat

    def copies_to(self, buffer: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(target, source) of all copies that bring the block into a buffer of at least the layout's size."""
        if self.flat is not None:
            return [(buffer[: self.layout.size], self.flat)]
        return [(place.view(buffer), held.rest) for place, held in zip(self.layout.places, self.held, strict=True)]

    def point_at(self, buffer: Tensor) -> None:
        """Let the block's tensors be those in the buffer."""
        for held, place in zip(self.held, self.layout.places, strict=True):
            held.put(place.view(buffer))

    def go_home(self) -> None:
        """Let the block's tensors be those at rest."""
        for held in self.held:
            held.put(held.rest)


class Guest:
    """Tensors that stay on a device for a while. Their originals stay where they are, so leaving copies nothing.

    What is changed during the stay is lost with it: weights are only read.
    """

    def __init__(self, tensors: Iterable[Held], device: torch.device) -> None:
        self._held = [held for held in tensors if held.rest.device != device]
        try:
            for held in self._held:
                held.put(held.rest.detach().to(device))
        except BaseException:  # no room for all of them: none stays
            self.leave()
            raise

    def leave(self) -> None:
        """Put the originals back; the copies are freed."""
        for held in self._held:
            held.put(held.rest)
        self._held = []
