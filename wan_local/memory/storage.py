"""The weights of a block as raw storage: where every tensor lies in one flat buffer, and how to point a module at it.

Nothing here knows what a layer is: parameters and buffers of any dtype (fp8 and packed bytes too) are moved as they
are, with their shapes and strides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Every parameter and buffer once, tied ones too."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            found.setdefault(id(tensor), tensor)
    return list(found.values())


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
        self.tensors = tensors_of([block])
        self.layout = layout(self.tensors)
        self.flat: Tensor | None = None
        self._rest = [tensor.data for tensor in self.tensors]

    def is_current(self, block: nn.Module) -> bool:
        """Whether the block still has these very tensors at rest (a merged LoRA replaces some)."""
        now = tensors_of([block])
        return len(now) == len(self.tensors) and all(
            a is b and a.data_ptr() == rest.data_ptr()
            for a, b, rest in zip(now, self.tensors, self._rest, strict=True)
        )

    def pack(self) -> Tensor:
        """Gather the weights into one buffer, which is one copy to the device; what held them before is let go."""
        if self.flat is None:
            flat = torch.empty(self.layout.size, dtype=torch.uint8)
            views = [place.view(flat) for place in self.layout.places]
            for view, rest in zip(views, self._rest, strict=True):
                view.copy_(rest)
            self.flat, self._rest = flat, views
            self.go_home()
        return self.flat

    def copies_to(self, buffer: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(target, source) of all copies that bring the block into a buffer of at least the layout's size."""
        if self.flat is not None:
            return [(buffer[: self.layout.size], self.flat)]
        return [(place.view(buffer), rest) for place, rest in zip(self.layout.places, self._rest, strict=True)]

    def point_at(self, buffer: Tensor) -> None:
        """Let the block's tensors be those in the buffer."""
        for tensor, place in zip(self.tensors, self.layout.places, strict=True):
            tensor.data = place.view(buffer)

    def go_home(self) -> None:
        """Let the block's tensors be those at rest."""
        for tensor, rest in zip(self.tensors, self._rest, strict=True):
            tensor.data = rest


class Guest:
    """Tensors that stay on a device for a while. Their originals stay where they are, so leaving copies nothing.

    What is changed in place during the stay is lost with it: weights are only read.
    """

    def __init__(self, tensors: list[Tensor], device: torch.device) -> None:
        self._homes = [(tensor, tensor.data) for tensor in tensors if tensor.device != device]
        try:
            for tensor, home in self._homes:
                tensor.data = home.to(device)
        except BaseException:  # no room for all of them: none stays
            self.leave()
            raise

    def leave(self) -> None:
        """Point the tensors back at their originals; the copies are freed."""
        for tensor, home in self._homes:
            tensor.data = home
        self._homes = []
