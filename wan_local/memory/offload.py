"""Transformer blocks that live in host memory and come to the device one after another, each while another calculates.

The device has a few buffers (two, unless asked otherwise), each as large as the largest block. An offloaded block is
copied into one of them before its turn, beside the calculations of the block before; its parameters are views of the
buffer for the time of its forward, and those in host memory afterwards. The last block of a forward is followed by the
first of the next. Model and blocks are not changed: each offloaded block gets a ``forward`` around its own.

Inference only, and one forward at a time. Read after ``storage.py`` and ``queues.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..free_memory import host_has_room
from ..model import WanTransformer
from ..words import counted
from .queues import Mark, PageLock, Queue, queue_of
from .storage import DeviceCopies, HostBlock, TensorPlaces, tensor_places, tensors_of

BUFFERS = 2  # one in use, one being filled


def attach(
    transformer: WanTransformer,
    device: torch.device | str,
    offloaded: int,
    *,
    buffers: int = BUFFERS,
    pack: bool | None = None,
    queue: Queue | None = None,
) -> Offload:
    """Bring a transformer to a device, all but ``offloaded`` of its blocks; ``close()`` what comes back.

    Args:
        transformer: in host memory, with its blocks in ``transformer.blocks``.
        device: where it is to calculate.
        offloaded: blocks that stay in host memory and come in turn, 0 to all of them.
        buffers: device buffers for them, at least 1; with 1 a copy waits for the block before.
        pack: whether offloaded blocks are gathered in host memory, each into one buffer, where there is room; None
            does it for CUDA, which can then copy each at once and by itself.
        queue: how the device orders copies and calculations; None is the right one.

    Raises:
        InputError: more blocks than there are, or a transformer that is not in host memory.
    """
    offload = Offload(transformer, device, buffers=buffers, pack=pack, queue=queue)
    offload.open(offloaded)
    return offload


class Offload:
    """The stay of one transformer on a device. Open and close as often as you like; packed host memory is kept, and
    stays locked: locking takes seconds for a model of 32 GB.

    Attributes:
        ring: the buffers while it is open and blocks are offloaded, else None.
        queue: how the device orders copies and calculations.
    """

    def __init__(
        self,
        transformer: WanTransformer,
        device: torch.device | str,
        *,
        buffers: int = BUFFERS,
        pack: bool | None = None,
        queue: Queue | None = None,
    ) -> None:
        if buffers < 1:
            raise InputError(f"buffers={buffers} can't be used; use 1 or more")
        self._transformer, self._device, self._buffers = transformer, torch.device(device), buffers
        self._pack = self._device.type == "cuda" if pack is None else pack
        self.queue = queue or queue_of(self._device)
        self._hosts: dict[int, HostBlock] = {}
        self._is_open = False
        self._copies: dict[int | None, DeviceCopies] = {}  # by block; under None what is in no block, or in several
        self._came: dict[int, tuple[DeviceCopies, Mark]] = {}  # ahead of the next stay, by block
        self._lock = PageLock(self._device) if self._device.type == "cuda" else None
        self._around: list[_FetchedForward] = []
        self.ring: Ring | None = None

    def __enter__(self) -> Offload:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, offloaded: int) -> None:
        """Bring all but ``offloaded`` blocks to the device, and start fetching the first of those; see attach."""
        blocks = self._transformer.blocks
        turn = offloaded_blocks(len(blocks), offloaded)
        came = self._settled_before(turn)
        self.close()
        self._copies.update(came)
        self._is_open = True
        try:
            self._settle(turn)
            for index, stay in self._to_bring(turn).items():
                for held in stay:
                    if held.rest.device.type != "cpu":
                        raise InputError(
                            f"the transformer is on {held.rest.device} already; load it with device='cpu' to offload"
                        )
                self._copies[index] = DeviceCopies(stay, self._device)
            self.ring = self._make_ring(turn) if turn else None
            for index in turn:
                assert self.ring is not None
                self._around.append(_FetchedForward(self.ring, self._hosts[index], index, blocks[index]))
        except BaseException:
            self.close()
            raise

    def buffers(self) -> list[Buffer]:
        """The buffers on the device, in no order."""
        return self.ring.buffers if self.ring is not None else []

    def close(self) -> None:
        """Leave the device: its memory is free, and every tensor is where it was before. Does nothing if closed."""
        if self._came:
            self.queue.drain()  # nothing may write into memory that is given back
            for copies, _ in self._came.values():
                copies.put_back()
            self._came = {}
        if not self._is_open:  # what was changed since then stays
            return
        self._is_open = False
        for around in self._around:
            around.undo()
        self._around = []
        for host in self._hosts.values():
            host.go_home()
        for copies in self._copies.values():
            copies.put_back()
        self._copies = {}
        if self.ring is not None:
            self.ring.close()
            self.ring = None

    # -- a switch to another transformer, see switch.py ---------------------------------------------------------

    def staying(self) -> dict[int, nn.Module]:
        """The blocks that are on the device for the whole stay, by number in their order."""
        blocks = self._transformer.blocks
        return {index: blocks[index] for index in sorted(index for index in self._copies if index is not None)}

    def give_place(self, index: int, unused: Mark, coming: Offload) -> None:
        """Let the same block of another transformer have the memory of this one, which goes home.

        Blocks of other sizes stay where they are.

        Args:
            index: of the block.
            unused: mark after which nothing reads this one.
            coming: of the other transformer, not open.
        """
        place = tensor_places(coming._transformer.blocks[index])
        moved = self._copies[index].replaced_by(place)
        if moved is not None:
            del self._copies[index]
            copies, pairs = moved
            coming._came[index] = copies, coming.queue.fetch(pairs, unused)

    @property
    def ahead(self) -> int:
        """Bytes on the device of what came there before the stay."""
        return sum(copies.size for copies, _ in self._came.values())

    def _settled_before(self, turn: list[int]) -> dict[int | None, DeviceCopies]:
        """What came ahead and can stay, calculations held until it is whole; the rest goes home with ``close``."""
        stay = {index: came for index, came in self._came.items() if index not in turn and came[0].are_in_place}
        for index, (_, ready) in stay.items():
            del self._came[index]
            self.queue.wait(ready)
        return {index: copies for index, (copies, _) in stay.items()}

    # -- inside -------------------------------------------------------------------------------------------------

    def _to_bring(self, turn: list[int]) -> dict[int | None, list[TensorPlaces]]:
        """What stays and is not there yet, by block."""
        owner: dict[int, int | None] = {}
        for index, block in enumerate(self._transformer.blocks):
            for tensor in tensors_of(block):
                owner[id(tensor)] = None if id(tensor) in owner else index
        there = {id(tensor) for block in self.staying().values() for tensor in tensors_of(block)}
        apart = {id(held.rest) for host in self._hosts.values() for held in host.held}
        bring: dict[int | None, list[TensorPlaces]] = {index: [] for index in range(len(self._transformer.blocks))}
        for held in tensor_places(self._transformer):
            if id(held.rest) not in apart | there:
                bring.setdefault(owner.get(id(held.rest)), []).append(held)
        return {index: places for index, places in bring.items() if places}

    def _settle(self, turn: list[int]) -> None:
        """The host side of the blocks that are offloaded; those of an earlier time are used again."""
        blocks = self._transformer.blocks
        kept = {index: host for index, host in self._hosts.items() if host.is_current(blocks[index])}
        self._hosts = {index: kept.get(index) or HostBlock(blocks[index]) for index in turn}
        if self._lock is not None:  # before others are packed: it holds on to what it has locked
            self._lock.keep(host.flat for host in self._hosts.values() if host.flat is not None)
        packed = []
        for host in self._hosts.values() if self._pack else ():
            if host.flat is not None or host_has_room(host.layout.size):
                packed.append(host.pack())
        if self._lock is not None:
            self._lock.add(packed)

    def _make_ring(self, turn: list[int]) -> Ring:
        size = max(self._hosts[index].layout.size for index in turn)
        count = min(self._buffers, len(turn))
        flats = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(count)]
        locked = None if self._lock is None else {tensor.data_ptr() for tensor in self._lock.tensors}
        slow = frozenset(
            index
            for index, host in self._hosts.items()
            if host.flat is None or (locked is not None and host.flat.data_ptr() not in locked)
        )
        return Ring(self.queue, flats, self._hosts, turn, slow)


class AroundForward:
    """Something that stands around a block's forward for a while.

    Attributes:
        inner: the forward within.
    """

    def __init__(self, block: Any) -> None:
        self.inner: Callable[..., Tensor] = block.forward
        self._block = block
        self._replaced = vars(block).get("forward")  # none, but where somebody else did as we do
        block.forward = self

    def undo(self) -> None:
        """Take it off again."""
        if self._replaced is None:
            del self._block.forward  # the class's own shows again
        else:
            self._block.forward = self._replaced


class _FetchedForward(AroundForward):
    """A block's forward, with the block on the device for its time."""

    def __init__(self, ring: Ring, host: HostBlock, index: int, block: nn.Module) -> None:
        super().__init__(block)
        self._ring, self._host, self._index = ring, host, index

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        if torch.is_grad_enabled() and _wants_gradients([*args, *(held.rest for held in self._host.held)]):
            raise InputError("blocks that are offloaded give no gradients; run under torch.no_grad(), or attach none")
        try:
            self._host.point_at(self._ring.take(self._index))
            return self.inner(*args, **kwargs)
        finally:
            self._host.go_home()
            self._ring.give()


@dataclass(slots=True, eq=False)
class Buffer:
    """One buffer of the ring.

    Attributes:
        flat: its bytes.
        free: mark after which it may be overwritten.
        ready: mark after which ``block`` is whole in it.
        block: what it holds, or None.
    """

    flat: Tensor
    free: Mark
    ready: Mark = None
    block: int | None = None


class Ring:
    """A few buffers, filled in the order in which the blocks come, and emptied in the same.

    Args:
        queue: of the device.
        flats: the buffers, uint8.
        hosts: where each block rests.
        turn: the blocks, in the order of a forward; after the last comes the first again.
        slow: blocks whose copies the host waits for, as CUDA does with memory that is not locked. Such a copy would
            first wait for the block whose buffer it takes, so it is asked for only after the next block has been
            launched: then that one calculates meanwhile.
    """

    def __init__(
        self,
        queue: Queue,
        flats: list[Tensor],
        hosts: Mapping[int, HostBlock],
        turn: list[int],
        slow: frozenset[int] = frozenset(),
    ) -> None:
        self._queue, self._hosts, self._turn, self._slow = queue, hosts, turn, slow
        start = queue.mark()  # whatever used the memory of the buffers before
        self.buffers = [Buffer(flat, start) for flat in flats]
        self._free = list(self.buffers)
        self._coming: deque[Buffer] = deque()
        self._used: Buffer | None = None
        self._next = 0
        self._fill()

    def take(self, block: int) -> Tensor:
        """The buffer with this block, calculations held until it is whole.

        A block out of turn (the first one, after a forward that was stopped) is fetched now, and the next after it.
        """
        self.give()  # one that a stop left behind
        if not self._coming or self._coming[0].block != block:
            self._free += self._coming
            self._coming.clear()
            self._next = self._turn.index(block)
            self._fill()
        self._used = self._coming.popleft()
        self._queue.wait(self._used.ready)
        return self._used.flat

    def give(self) -> None:
        """The block in use was launched; its buffer will be filled anew. Does nothing if none is in use."""
        if self._used is not None:
            used, self._used = self._used, None
            used.free = self._queue.mark()
            self._fill()  # what was put off until now
            self._free.append(used)
            while self._free and self._turn[self._next] not in self._slow:
                self._fetch()

    def close(self) -> None:
        """Wait for copies under way: nothing may write into buffers that are gone."""
        self._queue.drain()

    def _fill(self) -> None:
        while self._free:
            self._fetch()

    def _fetch(self) -> None:
        block = self._turn[self._next]
        buffer = next((buffer for buffer in self._free if buffer.block == block), self._free[0])
        if buffer.block != block:
            buffer.block = None
            buffer.ready = self._queue.fetch(self._hosts[block].copies_to(buffer.flat), buffer.free)
            buffer.block = block
        self._free.remove(buffer)
        self._coming.append(buffer)
        self._next = (self._next + 1) % len(self._turn)


def offloaded_blocks(blocks: int, offloaded: int) -> list[int]:
    """Which of ``blocks`` are offloaded: spread evenly, so that those that stay give time to fetch the others.

    Raises:
        InputError: more than there are, or fewer than none.
    """
    if not 0 <= offloaded <= blocks:
        raise InputError(
            f"offload={offloaded} can't be used: the model has {counted(blocks, 'block')}; use 0 to {blocks}"
        )
    return [index for index in range(blocks) if (index + 1) * offloaded // blocks > index * offloaded // blocks]


def _wants_gradients(values: list[object]) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)
