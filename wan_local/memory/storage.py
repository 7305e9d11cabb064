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
class TensorPlaces:
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


def tensor_places(module: nn.Module) -> list[TensorPlaces]:
    """Every parameter and buffer of a module and those within it."""
    found: dict[int, TensorPlaces] = {}
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    found.setdefault(id(tensor), TensorPlaces(tensor, [])).tables.append((table, name))
    return list(found.values())


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Every parameter and buffer of a module once, tied ones too."""
    return [held.rest for held in tensor_places(module)]


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

    Somebody may put another tensor in a place while the block is at home, as a LoRA that counts in some steps only does
    with norms and modulation. Such a tensor goes to the device by itself, at the block's next turn: what was put in its
    place is small, and copies of the block that are under way hold the old one.

    Attributes:
        layout: places in a flat buffer.
        flat: the buffer that holds them all, or None while they lie where they were loaded.
    """

    def __init__(self, block: nn.Module) -> None:
        self.held = tensor_places(block)
        self.layout = layout(held.rest for held in self.held)
        self.flat: Tensor | None = None
        self._apart: dict[int, Tensor] = {}  # number in held -> a tensor that is not in copies, where it was used last
        self._is_home = True

    def is_current(self, block: nn.Module) -> bool:
        """Whether the block has these very tensors at rest (a merged LoRA replaces some)."""
        now = tensors_of(block)
        return len(now) == len(self.held) and all(a is b.rest for a, b in zip(now, self.held, strict=True))

    def pack(self) -> Tensor:
        """Gather the weights into one buffer, which is one copy to the device; what held them before is let go."""
        if self.flat is None:
            flat = torch.empty(self.layout.size, dtype=torch.uint8)
            packed = []
            for number, (held, place) in enumerate(zip(self.held, self.layout.places, strict=True)):
                if number in self._apart:  # it may be of another dtype than its place
                    packed.append(held)
                    continue
                view = place.view(flat)
                view.copy_(held.rest)
                packed.append(TensorPlaces(held.put(view), held.tables))
            self.held, self.flat = packed, flat
        return self.flat

    def copies_to(self, buffer: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(target, source) of all copies that bring the block into a buffer of at least the layout's size."""
        if self.flat is not None:
            return [(buffer[: self.layout.size], self.flat)]
        rows = enumerate(zip(self.held, self.layout.places, strict=True))
        return [(place.view(buffer), held.rest) for number, (held, place) in rows if number not in self._apart]

    def point_at(self, buffer: Tensor) -> None:
        """Let the block's tensors be those in the buffer."""
        self._adopt()
        self._is_home = False
        for number, (held, place) in enumerate(zip(self.held, self.layout.places, strict=True)):
            if number not in self._apart:
                held.put(place.view(buffer))
                continue
            self._apart[number] = self._apart[number].to(buffer.device)
            held.put(self._apart[number])

    def go_home(self) -> None:
        """Let the block's tensors be those at rest."""
        if self._is_home:  # the end of the stay: nothing is left on the device
            self._adopt()
            self._apart = {number: self.held[number].rest for number in self._apart}
        for held in self.held:
            held.put(held.rest)
        self._is_home = True

    def _adopt(self) -> None:
        """Take what was put in the place of a tensor since the last turn as the one that rests there."""
        for number, held in enumerate(self.held):
            table, name = held.tables[0]
            new = table.get(name)
            if new is not None and new is not held.rest:
                at_rest = new if new.device == held.rest.device else new.to(held.rest.device)
                self.held[number] = TensorPlaces(held.put(at_rest), held.tables)
                self._apart[number] = new.detach()


class DeviceCopies:
    """Tensors that stay on a device for a while. Their originals stay where they are, so leaving copies nothing.

    A tensor that is put in the place of one of them meanwhile stays when they leave; values that are written into one
    are lost.
    """

    def __init__(self, tensors: Iterable[TensorPlaces], device: torch.device) -> None:
        self._held: list[tuple[TensorPlaces, Tensor]] = []
        try:
            for held in tensors:
                if held.rest.device != device:
                    self._held.append((held, held.put(held.rest.detach().to(device))))
        except BaseException:  # no room for all of them: none stays
            self.put_back()
            raise

    @property
    def size(self) -> int:
        """Bytes of the copies."""
        return size_of(there for _, there in self._held)

    @property
    def are_in_place(self) -> bool:
        """Whether nothing was put in the place of any of them."""
        return all(table.get(name) is there for held, there in self._held for table, name in held.tables)

    def replaced_by(self, others: Iterable[TensorPlaces]) -> tuple[DeviceCopies, list[tuple[Tensor, Tensor]]] | None:
        """Put the originals back and let copies of other tensors have the memory of these.

        Returns:
            the new copies, which hold other values until (target, source) each are copied; None, with nothing changed,
            where one of them has no copy of its form here.
        """
        free, pairs = [there for _, there in self._held], []
        for held in others:
            number = next((number for number, there in enumerate(free) if _form(there) == _form(held.rest)), None)
            if number is None:
                return None
            pairs.append((held, free.pop(number).detach()))
        self.put_back()
        copies = DeviceCopies((), torch.device("cpu"))
        copies._held = [(held, held.put(target)) for held, target in pairs]
        return copies, [(target, held.rest.detach()) for held, target in pairs]

    def put_back(self) -> None:
        """Put the originals back; the copies are freed."""
        for held, there in self._held:
            table, name = held.tables[0]
            now = table.get(name)
            held.put(held.rest if now is None or now is there else now.detach().to(held.rest.device))
        self._held = []


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride()
