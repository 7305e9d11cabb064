"""One transformer's blocks come while the other works for the last time, into the memory of those that have done so.

``cpu:0`` is a device like another here: what goes there is a copy, so that values can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wan_local import notices
from wan_local.denoiser import pair_of, velocity_of
from wan_local.memory import Memory
from wan_local.memory.offload import Offload, offloaded_blocks
from wan_local.memory.storage import tensors_of
from wan_local.memory.switch import Switch
from wan_local.sampling import Cond

from .conftest import CONFIG, inputs, make
from .test_queue_order import Behind
from .test_stages import GRID

Change = Callable[[nn.Module], object] | None
LAYERS = CONFIG.num_layers
THERE = torch.device("cpu", 0)


class Switched(Behind):
    """It looks at the blocks of both transformers: each reads in its first and its last layer."""

    def watch(self, model: nn.Module, indices: list[int]) -> None:
        for index in indices:
            for layer in (model.blocks[index].self_attn.q, model.blocks[index].ffn[2]):
                layer.register_forward_pre_hook(lambda module, _: self.looked(module.weight))

    def looked(self, weight: Tensor) -> None:
        self.asked += 1
        pending = [target for copies in self.pending[self.done :] for target, _ in copies]
        assert all(weight.data_ptr() != target.data_ptr() for target in pending), "read before its copy has ended"
        self.last_read[weight.data_ptr()] = self.asked

    def fetch(self, copies: list[tuple[Tensor, Tensor]], after: int) -> int:  # type: ignore[override]
        for target, _ in copies:
            assert after >= self.last_read.get(target.data_ptr(), 0), "a block may be overwritten while it is read"
        self.log += [("copy", target.data_ptr()) for target, _ in copies]
        self.pending.append(copies)
        if not self.late:
            self.run(len(self.pending))
        return len(self.pending)

    def wait(self, mark: int) -> None:
        self.run(mark)


@pytest.fixture(params=[False, True], ids=["early", "late"])
def queue(request: pytest.FixtureRequest) -> Switched:
    return Switched(request.param)


def other() -> nn.Module:
    """The same sizes, other values."""
    model = make()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(1.25)
    return model


@pytest.mark.parametrize("forwards", [1, 2])
@pytest.mark.parametrize("offloaded", [0, 1, LAYERS // 2, LAYERS])
@torch.no_grad()
def test_both_calculate_what_they_do_alone(queue: Switched, offloaded: int, forwards: int) -> None:
    given = inputs()
    first, second = make()(*given), other()(*given)
    high, low = make(), other()
    before = [tensor.clone() for tensor in tensors_of(low)]
    leaving, coming = (Offload(each, THERE, queue=queue) for each in (high, low))
    leaving.open(offloaded)
    stay = sorted(leaving.staying())
    assert stay == sorted(set(range(LAYERS)) - set(offloaded_blocks(LAYERS, offloaded)))
    for each in (high, low):
        queue.watch(each, stay)
    places = {tensor.data_ptr() for index in stay for tensor in tensors_of(high.blocks[index])}

    switch = Switch(leaving, coming, forwards)
    for number in range(forwards):
        assert torch.equal(high(*given), first)
        assert bool(coming.ahead) == (number == forwards - 1 and bool(stay))
    switch.close()
    leaving.close()
    assert not any("forward" in vars(block) for block in high.blocks)

    coming.open(offloaded)
    assert {tensor.data_ptr() for index in stay for tensor in tensors_of(low.blocks[index])} == places
    for _ in range(2):
        assert torch.equal(low(*given), second)
    coming.close()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(low), strict=True))


@torch.no_grad()
def test_blocks_come_while_later_ones_calculate(queue: Switched) -> None:
    high, low = make(), other()
    leaving, coming = (Offload(each, THERE, queue=queue) for each in (high, low))
    leaving.open(0)
    come: list[int] = []
    for block in high.blocks:
        block.self_attn.q.register_forward_pre_hook(lambda *_: come.append(len(coming._came)))
    switch = Switch(leaving, coming, 1)
    high(*inputs())
    assert come == [0, 0, *range(1, LAYERS - 1)]
    assert len(coming._came) == LAYERS
    switch.close()
    leaving.close()
    coming.close()
    assert coming.ahead == 0


def norm_put(model: nn.Module) -> None:
    model.blocks[1].norm3.weight = nn.Parameter(model.blocks[1].norm3.weight * 3, requires_grad=False)


@pytest.mark.parametrize(
    ("before", "after", "offloaded", "ahead"),
    [
        (lambda model: model.blocks[2].norm3.register_buffer("more", torch.zeros(3)), None, 0, LAYERS - 1),
        (None, norm_put, 0, LAYERS),
        (norm_put, None, 3, LAYERS),
    ],
    ids=["a block of another size", "a norm put in its place meanwhile", "more blocks offloaded"],
)
@torch.no_grad()
def test_what_does_not_fit_or_has_changed_comes_at_its_turn(
    before: Change, after: Change, offloaded: int, ahead: int
) -> None:
    given, high, low, same = inputs(), make(), other(), other()
    leaving, coming = Offload(high, THERE), Offload(low, THERE)
    if before is not None:
        before(low)
        before(same)
    leaving.open(0)
    switch = Switch(leaving, coming, 1)
    high(*given)
    switch.close()
    leaving.close()
    assert len(coming._came) == ahead
    if after is not None:
        after(low)
        after(same)
    coming.open(offloaded)
    assert torch.equal(low(*given), same(*given))
    coming.close()
    assert torch.equal(low(*given), same(*given))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("stopped_in", ["the last step", "the first step of the other"])
def test_a_run_that_ends_at_the_switch_leaves_everything_sound(error: BaseException, stopped_in: str) -> None:
    given = inputs()
    high, low = make(), other()
    memory = Memory(THERE, 2)
    homes = [[tensor.data_ptr() for tensor in tensors_of(each)] for each in (high, low)]
    calls: list[int] = []

    def fail(*_: object) -> None:
        if len(calls) == 1:
            raise error

    def sample() -> tuple[Tensor, Tensor]:
        calls.append(1)
        turns.bring(high, low, 1)
        first = high(*given)
        turns.bring(low)
        return first, low(*given)

    (high if stopped_in == "the last step" else low).blocks[4].norm3.register_forward_hook(fail)
    turns = memory.turns(GRID)
    with torch.no_grad():
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                turns.run(sample)
        with notices.listening(lambda text: None):
            found = turns.run(sample)  # again, with more blocks offloaded where memory ran out
        assert all(torch.equal(a, b) for a, b in zip(found, (make()(*given), other()(*given)), strict=True))
    assert len(calls) == 2
    assert [[tensor.data_ptr() for tensor in tensors_of(each)] for each in (high, low)] == homes
    assert memory.stay_of(low).ahead == 0


@pytest.mark.parametrize(
    ("timesteps", "at"), [([990, 950, 900, 500], 900), ([990, 900, 900, 500], None), ([990, 950, 920], None)]
)
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_last_step_before_the_boundary_is_told(timesteps: list[float], at: float | None, guidance: float) -> None:
    told: dict[float, tuple[object, object, int]] = {}

    class Still(nn.Module):
        config = CONFIG

        def forward(self, latents: Tensor, *_: object) -> Tensor:
            return latents[:, :1]

    high, low = Still(), Still()
    cond = Cond(condition=torch.zeros(1, 1, 1, 1, 1), text=torch.zeros(1, 1, 1))
    step: list[float] = []

    def bring(transformer: object, then: object, forwards: int) -> None:
        told[step[-1]] = transformer, then, forwards

    velocity = velocity_of(pair_of(high, low, 0.9), [cond, cond], guidance, bring, timesteps)
    for timestep in timesteps:
        step.append(timestep)
        velocity(torch.zeros(1, 1, 1, 1, 1), timestep)
    forwards = 1 if guidance == 1 else 2
    for timestep, found in told.items():
        who = high if timestep >= 900 else low
        assert found == (who, low if timestep == at else None, forwards)
