"""Text and image embeddings: kept apart, in order, complete, unmasked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from wan_local.attention import choose
from wan_local.errors import InputError
from wan_local.model.blocks import Context
from wan_local.model.rope import rope_table


def velocity(model, given, **changes):
    with torch.no_grad():
        return model(given.latents, given.timestep, changes.get("text", given.text), changes.get("image", given.image))


@pytest.mark.parametrize("kind", ["flf", "i2v"])
def test_missing_image_rows_are_an_error_and_never_text(lab, kind):
    model = lab.build(lab.tiny(kind))
    given = lab.inputs(model.config, text_rows=5)
    with pytest.raises(InputError, match="image=None.*image encoder"):
        velocity(model, given, image=None)


def test_text_never_passes_through_k_img(lab):
    """As many text embeddings as image embeddings, so that no length could tell them apart."""
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, text_rows=14)
    seen = {"k_img": [], "v_img": [], "k": [], "v": []}
    for block in model.blocks:
        for name in seen:
            block.cross_attn.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: seen[name].append(args[0])
            )
    velocity(model, given)
    velocity(model, given, text=given.text + 1)
    for name in ("k_img", "v_img"):
        first, second = seen[name][:3], seen[name][3:]
        for before, after in zip(first, second, strict=True):
            assert torch.equal(before, after), "the image branch saw the text"
    for name in ("k", "v"):
        assert not torch.equal(seen[name][0], seen[name][3])
        for rows in seen[name]:
            assert rows.shape[1] == 14


def test_image_rows_for_a_model_without_image_branch_are_an_error(lab):
    model = lab.build(lab.tiny("t2v"))
    given = lab.inputs(model.config, text_rows=5)
    with pytest.raises(InputError, match="without image branch"):
        velocity(model, given, image=torch.randn(1, 7, 40))


def test_positions_are_added_before_the_first_norm(lab):
    """img_emb by hand in float64: position, LayerNorm(1e-5), exact GELU, LayerNorm(1e-5)."""
    embedding = lab.build(lab.tiny("flf")).img_emb
    weight = {name: value.detach().double() for name, value in embedding.state_dict().items()}
    image = 0.02 * torch.randn(2, 14, 40)  # small, so that the norm's epsilon shows
    with torch.no_grad():
        embedding.emb_pos.mul_(0.02)
        got = embedding(image, torch.float32)
    positions = weight["emb_pos"] * 0.02

    def by_hand(before, after, approximate="none", eps=1e-5):
        x = functional.layer_norm(before, (40,), weight["proj.0.weight"], weight["proj.0.bias"], eps) + after
        x = functional.linear(x, weight["proj.1.weight"], weight["proj.1.bias"])
        x = functional.gelu(x, approximate=approximate)
        x = functional.linear(x, weight["proj.3.weight"], weight["proj.3.bias"])
        return functional.layer_norm(x, x.shape[-1:], weight["proj.4.weight"], weight["proj.4.bias"], eps)

    x = image.double()
    assert lab.errors(got, by_hand(x + positions, 0))[0] < 2e-6
    assert lab.errors(got, by_hand(x, positions))[1] > 1e-2
    assert lab.errors(got, by_hand(x + positions, 0, approximate="tanh"))[0] > 2e-5
    assert lab.errors(got, by_hand(x + positions, 0, eps=1e-6))[0] > 1e-4


def test_first_and_last_are_not_interchangeable(lab):
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, text_rows=5)
    first, last = given.image.chunk(2, dim=1)
    swapped = velocity(model, given, image=torch.cat((last, first), 1))
    assert lab.errors(swapped, velocity(model, given))[1] > 1e-3


def test_without_positions_image_order_does_not_matter(lab):
    """The contrast to the test above: it is emb_pos, and nothing else, that tells the images apart."""
    model = lab.build(lab.tiny("i2v"))
    given = lab.inputs(model.config, text_rows=5)
    assert lab.errors(velocity(model, given, image=given.image.flip(1)), velocity(model, given))[1] < 1e-5


def test_pairs_of_a_batch_lie_side_by_side(lab):
    """[2B, n] is first, last, first, last: the same as [B, 2n], and as each sample on its own."""
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, batch=2, text_rows=5)
    paired = given.image.reshape(4, 7, 40)
    together = velocity(model, given, image=paired)
    assert torch.equal(together, velocity(model, given))
    for i in range(2):
        with torch.no_grad():
            alone = model(
                given.latents[i : i + 1],
                given.timestep[i : i + 1],
                given.text[i : i + 1],
                paired[2 * i : 2 * i + 2],
            )
        assert lab.errors(together[i : i + 1], alone)[0] < 1e-5
    assert lab.errors(velocity(model, given, image=paired[[0, 2, 1, 3]]), together)[1] > 1e-3


@pytest.mark.parametrize("shape", [(1, 7, 40), (1, 13, 40), (1, 15, 40), (3, 7, 40), (2, 14, 40), (1, 14, 39)])
def test_anything_but_both_images_is_an_error(lab, shape):
    """One image alone would get the first one's positions; the row count must be exactly that of emb_pos."""
    model = lab.build(lab.tiny("flf"))
    with pytest.raises(InputError, match=r"does not fit; give \[1, 14, 40\]"):
        velocity(model, lab.inputs(model.config, text_rows=5), image=torch.randn(shape))


def test_one_of_two_images_has_its_own_half_of_the_positions(lab):
    """Written out: the model with that half of ``emb_pos`` in the place of all. Core gives the last the first half."""
    model, half = lab.build(lab.tiny("flf")), lab.build(lab.tiny("flf"))
    half.load_state_dict(model.state_dict())
    given = lab.inputs(model.config, text_rows=5)
    rows = given.image[:, 7:]
    found = []
    for first_row in (0, 7):
        half.config = replace(model.config, image_tokens=7)
        half.img_emb.emb_pos = torch.nn.Parameter(model.img_emb.emb_pos[:, first_row : first_row + 7])
        with torch.no_grad():
            one = model(given.latents, given.timestep, given.text, rows, image_row=first_row)
            assert torch.equal(one, half(given.latents, given.timestep, given.text, rows))
        found.append(one)
    assert lab.errors(*found)[1] > 1e-3
    with pytest.raises(InputError, match=r"from row 3 on does not fit; give .* for row 0 .* or 7"):
        model(given.latents, given.timestep, given.text, rows, image_row=3)


def test_no_image_at_all_adds_nothing_and_has_to_be_said(lab):
    """No rows, and not None: that is an image encoder that was forgotten."""
    model = lab.build(lab.tiny("flf"))
    given = lab.inputs(model.config, text_rows=5)
    none = velocity(model, given, image=given.image[:, :0])
    for block in model.blocks:
        torch.nn.init.zeros_(block.cross_attn.v_img.weight)
        torch.nn.init.zeros_(block.cross_attn.v_img.bias)
    assert lab.errors(none, velocity(model, given))[0] < 1e-5


def test_padded_text_rows_attend(lab):
    """Zeros behind a prompt are not masked; a mask would make both lengths equal. diffusers agrees."""
    ours, theirs = lab.pair(lab.tiny("t2v"))
    given = lab.inputs(ours.config, text_rows=12)
    given.text[:, 5:] = 0
    padded = velocity(ours, given)
    assert lab.errors(velocity(ours, given, text=given.text[:, :5]), padded)[1] > 1e-3
    with torch.no_grad():
        assert lab.errors(padded, lab.ask_theirs(theirs, given))[0] <= 1e-5


@pytest.mark.parametrize("text_rows", [1, 5, 226, 512, 600])
def test_text_and_image_are_split_alike_for_every_text_length(lab, text_rows):
    """ "The last 512 rows are text" is wrong for a prompt of 226; here nothing is ever joined."""
    model = lab.build(lab.tiny("flf", num_layers=1))
    block = model.blocks[0]
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(2, 12, 96, generator=generator), torch.randn(2, text_rows, 96, generator=generator)
    time, image = torch.randn(2, 6, 96, generator=generator), torch.randn(2, 14, 96, generator=generator)
    context = Context(
        time=time,
        text=text,
        image=image,
        rope=rope_table((2, 2, 3), 32, x.device),
        dtype=torch.float32,
        attend=choose("sdpa"),
    )
    with torch.no_grad():
        got = block(x.clone(), context)
    expected = lab.reference_block(block, x, time, text, image, lab.angles((2, 2, 3), 32))
    error = lab.errors(got, expected)[0]
    print(f"block with {text_rows} text rows against float64: {error:.1e}")
    assert error <= 1e-5


def test_norms_have_the_official_epsilon(lab):
    """Values of the size 1e-3, so that an epsilon of 1e-6 counts as much as they do."""
    block = lab.build(lab.tiny("flf", num_layers=1)).blocks[0]
    generator = torch.Generator().manual_seed(6)
    x, text = 1e-3 * torch.randn(2, 12, 96, generator=generator), torch.randn(2, 9, 96, generator=generator)
    time, image = torch.randn(2, 6, 96, generator=generator), torch.randn(2, 14, 96, generator=generator)
    context = Context(
        time=time,
        text=text,
        image=image,
        rope=rope_table((2, 2, 3), 32, x.device),
        dtype=torch.float32,
        attend=choose("sdpa"),
    )
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.startswith("self_attn.o") or ".q." in name or ".k." in name or ".k_img." in name:
                parameter.mul_(1e-3)
        got = block(x.clone(), context)
    turn = lab.angles((2, 2, 3), 32)
    assert lab.errors(got, lab.reference_block(block, x, time, text, image, turn))[0] <= 1e-5
    for eps in (1e-5, 5e-7):
        assert lab.errors(got, lab.reference_block(block, x, time, text, image, turn, eps=eps))[1] > 1e-3


def test_prompt_of_226_rows_equals_diffusers_where_diffusers_does_not_split(lab):
    ours, theirs = lab.pair(lab.tiny("t2v"))
    given = lab.inputs(ours.config, batch=2, text_rows=226)
    with torch.no_grad():
        assert lab.errors(lab.ask(ours, given), lab.ask_theirs(theirs, given))[0] <= 1e-5


def test_modulation_is_shift_scale_gate_for_attention_then_for_the_feed_forward(lab):
    model = lab.build(lab.tiny("flf", num_layers=1))
    block = model.blocks[0]
    generator = torch.Generator().manual_seed(4)
    for batch in (1, 2):
        x, text = (
            torch.randn(batch, 12, 96, generator=generator),
            torch.randn(batch, 9, 96, generator=generator),
        )
        time, image = (
            torch.randn(batch, 6, 96, generator=generator),
            torch.randn(batch, 14, 96, generator=generator),
        )
        turn = lab.angles((2, 2, 3), 32)
        context = Context(
            time=time,
            text=text,
            image=image,
            rope=rope_table((2, 2, 3), 32, x.device),
            dtype=torch.float32,
            attend=choose("sdpa"),
        )
        with torch.no_grad():
            got = block(x.clone(), context)
        assert lab.errors(got, lab.reference_block(block, x, time, text, image, turn))[0] <= 1e-5
        for order in ((1, 0, 2, 3, 4, 5), (0, 1, 2, 4, 3, 5), (2, 1, 0, 5, 4, 3), (3, 4, 5, 0, 1, 2)):
            wrong = lab.reference_block(block, x, time, text, image, turn, order=order)
            assert lab.errors(got, wrong)[1] > 1e-2, f"rows {order} look the same"
        wrong = lab.reference_block(block, x, time, text, image, turn, rotate_first=True)
        assert lab.errors(got, wrong)[1] > 1e-3
