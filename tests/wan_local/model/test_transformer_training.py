"""The transformer can be trained: right gradients, also under autocast, and nothing lingers between calls."""

from __future__ import annotations

import pytest
import torch

from wan_local.model import WanTransformer
from wan_local.model.initial import initialise


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", ["flf", "t2v"])
def test_gradients_equal_diffusers(lab, kind, batch):
    ours, theirs = lab.pair(lab.tiny(kind, num_layers=2))
    given = lab.inputs(ours.config, batch=batch)
    target = torch.randn(batch, 16, 2, 4, 6)
    (lab.ask(ours, given) - target).square().mean().backward()
    (lab.ask_theirs(theirs, given) - target).square().mean().backward()
    mine = {name: value.grad for name, value in ours.named_parameters()}
    worst = {}
    for name, value in theirs.named_parameters():
        name = lab.official_name(name)
        assert mine[name] is not None, f"{name} has no gradient"
        worst[name] = lab.errors(mine[name], value.grad)[1]
    name = max(worst, key=worst.get)
    print(f"gradients {kind} batch {batch}: worst L2 {worst[name]:.1e} ({name})")
    assert worst[name] <= 1e-4


def test_gradients_under_autocast_point_the_same_way(lab):
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, batch=2, text_rows=9)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = lab.ask(model, given).square().mean()
        loss.backward()
        assert loss.dtype == torch.float32
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
    for name, full in gradients[0].items():
        half = gradients[1][name]
        assert half.dtype == torch.float32
        assert half.isfinite().all(), name
        assert torch.cosine_similarity(full.flatten(), half.flatten(), dim=0) > 0.98, name


def test_a_few_steps_under_autocast_lower_the_loss(lab):
    torch.manual_seed(0)
    model = initialise(WanTransformer(lab.tiny("flf", num_layers=2)))
    given = lab.inputs(model.config, batch=2, text_rows=9)
    target = given.latents[:, :16]
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (lab.ask(model, given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < 0.7 * losses[0]


def test_starting_weights_predict_zero_and_learn(lab):
    model = initialise(WanTransformer(lab.tiny("flf")))
    given = lab.inputs(model.config, text_rows=5)
    velocity = lab.ask(model, given)
    assert torch.equal(velocity, torch.zeros_like(velocity))
    (velocity - 1).square().mean().backward()
    assert model.head.head.weight.grad.abs().max() > 0


def test_inference_mode_leaves_nothing_behind_that_breaks_training(lab):
    """A table cached in inference mode could not take part in a backward afterwards."""
    model = lab.build(lab.tiny("flf", num_layers=1))
    given = lab.inputs(model.config, text_rows=5)
    with torch.inference_mode():
        before = lab.ask(model, given)
    after = lab.ask(model, given)
    after.sum().backward()
    assert torch.equal(before, after.detach())


def test_inputs_are_not_written_to(lab):
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, batch=2, text_rows=5)
    kept = {name: value.clone() for name, value in vars(given).items()}
    with torch.no_grad():
        lab.ask(model, given)
    for name, value in vars(given).items():
        assert torch.equal(value, kept[name]), name
