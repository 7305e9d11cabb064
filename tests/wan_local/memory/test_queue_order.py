"""No block is read before it is whole, none is overwritten while it is read, and copies run ahead.

A stand-in for a device that works behind the host's back: copies are done at the last moment that the rules allow, or
at the first, and every breach of the rules is noticed even where the numbers would come out right by luck.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from wan_local.memory import attach
from wan_local.memory.offload import offloaded_blocks

from .conftest import CONFIG, inputs, make

LAYERS = CONFIG.num_layers
Key = int


class Behind:
    """Calculations are numbered as they are asked for. A mark of theirs is a number, one of copies a place in a list.

    Attributes:
        last_read: number of the last calculation that read a buffer, by where the buffer lies.
        log: ("copy", buffer) and ("read", buffer) in the order in which they were asked for.
    """

    def __init__(self, late: bool) -> None:
        self.late = late
        self.asked = 0
        self.pending: list[list[tuple[Tensor, Tensor]]] = []
        self.begun = self.done = 0
        self.last_read: dict[Key, int] = {}
        self.log: list[tuple[str, Key]] = []
        self.waited: set[Key] = set()  # buffers whose last copy calculations waited for

    def mark(self) -> int:
        return self.asked

    def fetch(self, copies: Iterable[tuple[Tensor, Tensor]], after: int) -> int:
        copies = list(copies)
        buffer = key(copies[0][0])
        assert after >= self.last_read.get(buffer, 0), "a buffer may be overwritten while it is read"
        self.waited.discard(buffer)
        self.log.append(("copy", buffer))
        self.pending.append(copies)
        if not self.late:
            self.run(len(self.pending))
        return len(self.pending)

    def wait(self, mark: int) -> None:
        self.run(mark)
        self.waited |= {key(copies[0][0]) for copies in self.pending[:mark]} - {
            key(copies[0][0]) for copies in self.pending[mark:]
        }

    def run(self, until: int) -> None:
        while self.done < until:
            for target, source in self.pending[self.done]:
                target.copy_(source)
            self.done += 1

    def drain(self) -> None:
        self.run(len(self.pending))

    def read(self, buffer: Key) -> None:
        assert buffer in self.waited, "a block is read before its copy has ended"
        self.asked += 1
        self.last_read[buffer] = self.asked
        self.log.append(("read", buffer))


def key(tensor: Tensor) -> Key:
    return tensor.untyped_storage().data_ptr()


@pytest.fixture(params=[False, True], ids=["early", "late"])
def behind(request: pytest.FixtureRequest) -> Behind:
    return Behind(request.param)


def watched(behind: Behind, turn: list[int]) -> torch.nn.Module:
    """A model that tells which buffer each of its offloaded blocks reads, at its first and its last layer."""
    model = make()
    for index in turn:
        block = model.blocks[index]
        for layer in (block.self_attn.q, block.ffn[2]):
            layer.register_forward_pre_hook(lambda module, _: behind.read(key(module.weight)))
    return model


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("offloaded", range(1, LAYERS + 1))
@torch.no_grad()
def test_rules_hold_over_several_forwards(behind: Behind, offloaded: int, buffers: int, pack: bool) -> None:
    given = inputs()
    expected = make()(*given)
    model = watched(behind, offloaded_blocks(LAYERS, offloaded))
    with attach(model, "cpu", offloaded, buffers=buffers, pack=pack, queue=behind):
        for _ in range(3):
            assert torch.equal(model(*given), expected)
    copied = sum(what == "copy" for what, _ in behind.log)
    if offloaded <= buffers:  # each has a buffer of its own
        assert copied == offloaded
    else:  # once a forward, and the first of the next come already
        assert copied == 3 * offloaded + buffers - (not pack)


@pytest.mark.parametrize("stop_at", range(LAYERS))
@torch.no_grad()
def test_rules_hold_after_a_stop(behind: Behind, stop_at: int) -> None:
    given = inputs()
    expected = make()(*given)
    model = watched(behind, list(range(LAYERS)))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with attach(model, "cpu", LAYERS, queue=behind):
        for _ in range(2):
            hook = model.blocks[stop_at].norm3.register_forward_hook(stop)
            with pytest.raises(KeyboardInterrupt):
                model(*given)
            hook.remove()
            assert torch.equal(model(*given), expected)


@torch.no_grad()
def test_the_next_block_comes_while_this_one_calculates(behind: Behind) -> None:
    model = watched(behind, list(range(LAYERS)))
    with attach(model, "cpu", LAYERS, pack=True, queue=behind):
        model(*inputs())
    reads = [place for place, (what, _) in enumerate(behind.log) if what == "read"]
    for block in range(LAYERS - 1):
        first_read = reads[2 * block]
        asked = sum(what == "copy" for what, _ in behind.log[:first_read])
        assert asked >= block + 2, f"block {block + 1} was not asked for when block {block} began"


@pytest.mark.parametrize("offloaded", [3, 4, LAYERS])
@torch.no_grad()
def test_a_copy_the_host_waits_for_is_asked_for_when_the_next_block_has_been_launched(offloaded: int) -> None:
    """Without packing CUDA's copies keep the host: one behind a block that was just launched would stop everything."""
    turn = offloaded_blocks(LAYERS, offloaded)
    model, log, marks = make(), [], iter(range(999))
    names = {tensor.data_ptr(): index for index in turn for tensor in model.blocks[index].parameters()}
    for index in turn:
        model.blocks[index].register_forward_pre_hook(lambda *_, index=index: log.append(("launch", index)))

    class Waiting:
        def mark(self) -> int:
            log.append(("mark", number := next(marks)))
            return number

        def fetch(self, copies: Iterable[tuple[Tensor, Tensor]], after: int) -> None:
            copies = list(copies)
            log.append(("fetch", names[copies[0][1].data_ptr()], after))
            for target, source in copies:
                target.copy_(source)

        def wait(self, mark: None) -> None:
            pass

        def drain(self) -> None:
            pass

    with attach(model, "cpu", offloaded, buffers=2, pack=False, queue=Waiting()):
        for _ in range(2):
            model(*inputs())
    assert [row[:2] for row in log[:4]] == [("mark", 0), ("fetch", turn[0]), ("fetch", turn[1]), ("launch", turn[0])]
    launches = [place for place, row in enumerate(log) if row[0] == "launch"]
    for number, place in enumerate(launches[1:], start=1):
        # Between two launches of offloaded blocks: the mark of the first, and a copy into the buffer before it.
        behind_it = log[place + 1 : launches[number + 1] if number + 1 < len(launches) else None]
        assert [row[0] for row in behind_it] == ["mark", "fetch"]
        before = next(row[1] for row in log[launches[number - 1] :] if row[0] == "mark")
        assert behind_it[1] == ("fetch", turn[(number + 1) % offloaded], before)


@pytest.mark.parametrize("buffers", [1, 2, 3])
@torch.no_grad()
def test_copies_run_ahead_again_after_a_stop(buffers: int) -> None:
    behind = Behind(late=True)
    model = watched(behind, list(range(LAYERS)))
    with attach(model, "cpu", LAYERS, buffers=buffers, pack=True, queue=behind) as offload:
        assert offload.ring is not None
        offload.ring.take(3)  # and a stop so sudden that it is never given back
        before = sum(what == "copy" for what, _ in behind.log)
        behind.log.clear()
        model(*inputs())
        first_read = [what for what, _ in behind.log].index("read")
        assert first_read == 1 + buffers  # the one taken back; then all of them, beginning with block 0
        assert len({buffer for what, buffer in behind.log if what == "read"}) == buffers
        assert before == buffers + buffers


@torch.no_grad()
def test_closing_waits_for_copies_under_way() -> None:
    behind = Behind(late=True)
    offload = attach(make(), "cpu", LAYERS, queue=behind)
    assert behind.done == 0
    offload.close()
    assert behind.done == len(behind.pending) > 0
