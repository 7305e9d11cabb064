"""RIFLEx: time turns slower in a clip longer than those of training, and nothing else does.

Compared with ``riflex_utils.py`` of thu-ml/RIFLEx (18e0bc3), k = 4 and 23, 31 and 41 latent frames of 44 channels: the
largest difference of its table in float32 to ours is 1.4e-6.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.model.rope import axis_angles, intrinsic, rope_table

CPU = torch.device("cpu")
# Another k or a turn of another length than riflex_utils.identify_k finds would be another model's.
IDENTIFIED = {(22, 21): (3, 22), (22, 5): (0, 6), (22, 33): (4, 34), (12, 5): (0, 6), (12, 21): (1, 14)}
FREQUENCIES = [1.0, 0.6579, 0.4329, 0.1379, 0.1874, 0.1233]  # of its first six pairs at 41 latent frames
SIZES = TransformerConfig(
    dim=128, ffn_dim=64, num_heads=1, num_layers=1, freq_dim=32, text_dim=8, image_dim=0, trained_frames=17
)


@pytest.mark.parametrize(("pairs", "trained"), IDENTIFIED)
def test_the_pair_is_the_published_one(pairs: int, trained: int) -> None:
    assert intrinsic(pairs, trained) == IDENTIFIED[pairs, trained]


def test_one_pair_of_time_is_slowed_down_to_less_than_a_turn() -> None:
    long = axis_angles(41, 22, CPU, trained=21)
    torch.testing.assert_close(long[1, :6].tolist(), FREQUENCIES, rtol=0, atol=5e-5)
    assert long[-1, 3] < 0.9 * 2 * math.pi < axis_angles(41, 22, CPU)[-1, 3]
    changed = rope_table((41, 41, 2), 128, CPU, 21) != rope_table((41, 41, 2), 128, CPU)
    assert changed.flatten(0, 1).any(0).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(("frames", "acts"), [(21, False), (22, False), (23, True)])
def test_it_acts_behind_the_first_turn_alone(frames: int, acts: bool) -> None:
    assert torch.equal(axis_angles(frames, 22, CPU, 21), axis_angles(frames, 22, CPU)) != acts


@torch.no_grad()
def test_the_model_follows_the_length_of_its_own_training() -> None:
    """17 frames are 5 latent ones: the fastest pair is the one that repeats, and from 7 on it is slower."""
    torch.manual_seed(0)
    model = WanTransformer(SIZES).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))

    def look(frames: int, **options: bool) -> Tensor:
        latents = torch.randn(1, 36, frames, 4, 4, generator=torch.Generator().manual_seed(1))
        return model(latents, torch.tensor([500.0]), torch.zeros(1, 4, 8), **options)

    assert torch.equal(look(6, riflex=True), look(6))
    assert not torch.allclose(look(7, riflex=True), look(7), atol=1e-4)
