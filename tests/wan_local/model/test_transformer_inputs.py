"""Bad input is one clear line before anything runs."""

from __future__ import annotations

import pytest
import torch

from wan_local.errors import InputError

BAD = {
    "16 channels": ("latents", torch.zeros(1, 16, 2, 4, 6), r"\(1, 16, 2, 4, 6\).*36"),
    "no batch": ("latents", torch.zeros(36, 2, 4, 6), r"\[B, 36, T, h, w\]"),
    "odd height": ("latents", torch.zeros(1, 36, 2, 5, 6), r"h=5.*2"),
    "odd width": ("latents", torch.zeros(1, 36, 2, 4, 7), r"w=7.*2"),
    "no frames": ("latents", torch.zeros(1, 36, 0, 4, 6), "empty"),
    "integer latents": ("latents", torch.zeros(1, 36, 2, 4, 6, dtype=torch.int64), "int64"),
    "two timesteps": ("timestep", torch.zeros(2), r"\(2,\).*\(1,\)"),
    "bare timestep": ("timestep", torch.tensor(5.0), r"\(\).*\(1,\)"),
    "bfloat16 timestep": ("timestep", torch.tensor([999.0]).bfloat16(), "bfloat16.*float32"),
    "text of another width": ("text", torch.zeros(1, 5, 47), r"\(1, 5, 47\).*48"),
    "text of another batch": ("text", torch.zeros(2, 5, 48), r"\(2, 5, 48\).*\[1, S, 48\]"),
    "no text rows": ("text", torch.zeros(1, 0, 48), "S >= 1"),
    "image of another width": ("image", torch.zeros(1, 14, 41), r"\(1, 14, 41\).*40"),
    "flat image": ("image", torch.zeros(14, 40), r"\(14, 40\).*40"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_the_remedy(lab, case):
    name, value, message = BAD[case]
    model = lab.build(lab.tiny("flf", num_layers=1))
    given = lab.inputs(model.config, text_rows=5)
    setattr(given, name, value)
    with pytest.raises(InputError, match=message) as caught:
        lab.ask(model, given)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_i2v_takes_any_number_of_image_rows(lab):
    model = lab.build(lab.tiny("i2v", num_layers=1))
    given = lab.inputs(model.config, text_rows=5)
    for rows in (1, 7, 14):
        given.image = torch.randn(1, rows, 40)
        assert lab.ask(model, given).shape == (1, 16, 2, 4, 6)
