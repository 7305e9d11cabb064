"""A clip in windows: where they lie, how they are joined, and what each sees of the images.

Places, weights, order of the noise and the fused velocity are those of ComfyUI's ``comfy/context_windows.py`` (0.33.0):
compared over many sizes with its own functions, of which some results stand here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser, velocity_of
from wan_local.errors import InputError
from wan_local.longer import Longer
from wan_local.notices import listening
from wan_local.sampling import Cond, cond_velocity, lengthened
from wan_local.sampling.windows import fused, places, pyramid, shuffled
from wan_local.shapes import Grid

FLF = TransformerConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=1, text_dim=8, image_dim=4, image_tokens=6)
I2V = TransformerConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=1, text_dim=8, image_dim=4, image_tokens=0)
WINDOWS = Longer(way="windows", window=17, overlap=8)  # 5 latent frames, of which neighbours share 2
FRAMES = 9  # latent ones


class Spy:
    """Gives each latent frame its noise again, and remembers what it was given."""

    def __init__(self, config: TransformerConfig = FLF) -> None:
        self.config, self.seen = config, []

    def __call__(
        self, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, /, image_row: int | None = None
    ) -> Tensor:
        rows = None if image is None else image[0, :, 0].int().tolist()
        self.seen.append((latents[0, -1, :, 0, 0].int().tolist(), rows, image_row))
        return latents[:, :16]


def cond(image: Tensor | None, image_row: int | None = None, first: float = 1.0, last: float = 1.0) -> Cond:
    """Its last channel numbers the latent frames; image embeddings are numbered too."""
    condition = torch.zeros(1, 20, FRAMES, 2, 2)
    condition[:, -1] = torch.arange(FRAMES).view(-1, 1, 1)
    condition[:, :4, 0], condition[:, 3, -1] = first, last
    return Cond(condition=condition, text=torch.zeros(1, 1, 8), image=image, image_row=image_row)


def rows(begin: int, end: int) -> Tensor:
    return torch.arange(begin, end, dtype=torch.float32).view(1, -1, 1).expand(1, -1, 4)


def test_windows_lie_where_core_puts_them() -> None:
    assert [(each.start, each.stop) for each in places(41, 21, 7)] == [(0, 21), (14, 35), (20, 41)]
    assert [(each.begin, each.start, each.stop) for each in places(9, 5, 2)] == [(0, 0, 5), (2, 3, 8), (3, 4, 9)]
    assert places(5, 5, 2) == places(5, 9, 2) == [(0, 0, 5, 0, 0, None)]
    assert pyramid(5).tolist() == [1, 2, 3, 2, 1]
    assert pyramid(4).tolist() == [1, 2, 2, 1]
    noise = torch.arange(14.0).view(1, 1, 14, 1, 1)
    assert shuffled(noise, 5, 2, seed=7).flatten().int().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 4, 3, 0, 2, 4, 1]


def test_the_frame_before_a_window_counts_for_nothing() -> None:
    """The model takes the first that it sees for a single video frame."""

    def look(latents: Tensor, timestep: float) -> Tensor:
        found = torch.ones_like(latents)
        found[:, :, 0] = 1000.0
        return found

    found = fused([(each, look) for each in places(9, 5, 2)])(torch.zeros(1, 16, 9, 2, 2), 500.0)
    assert found[0, 0, :, 0, 0].tolist() == [1000.0, *[1.0] * 8]


def test_neighbours_are_weighted_by_how_far_in_they_are() -> None:
    values = (10.0, 20.0, 30.0)
    looks = [lambda latents, _, value=value: torch.full_like(latents, value) for value in values]
    parts = list(zip(places(9, 5, 2), looks, strict=True))
    found = fused(parts)(torch.zeros(1, 16, 9, 2, 2), 500.0)[0, 0, :, 0, 0]
    # Frame 4 is the end of the first window, the second of the second, the beginning of the third.
    expected = [10, 10, 10, (2 * 10 + 20) / 3, (10 + 2 * 20 + 30) / 4, (3 * 20 + 2 * 30) / 5]
    torch.testing.assert_close(found[:6], torch.tensor(expected))


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        (FLF, cond(rows(0, 6)), [([0, 1, 2], 0), ([], None), ([3, 4, 5], 3)]),
        (FLF, cond(rows(0, 3), image_row=0, last=0.0), [([0, 1, 2], 0), ([], None), ([], None)]),
        (FLF, cond(rows(3, 6), image_row=3, first=0.0), [([], None), ([], None), ([3, 4, 5], 3)]),
        (I2V, cond(rows(0, 3)), [([0, 1, 2], None), ([], None), ([], None)]),
        (I2V, cond(rows(0, 3), first=0.0), [([], None), ([], None), ([0, 1, 2], None)]),
        (I2V, cond(None), [(None, None)] * 3),
    ],
    ids=["both", "first alone", "last alone", "I2V", "I2V, last alone", "no image branch"],
)
def test_a_window_sees_the_images_that_lie_in_it(config: TransformerConfig, given: Cond, expected: list) -> None:
    spy, latents = Spy(config), torch.randn(1, 16, FRAMES, 2, 2)
    found = cond_velocity(spy, given.in_windows(5, 2, config))(latents, 500.0)
    torch.testing.assert_close(found, latents)
    frames = [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]
    assert spy.seen == [(each, *image) for each, image in zip(frames, expected, strict=True)]


def test_a_keyframe_is_in_the_window_it_lies_in_alone() -> None:
    given = cond(None)
    given.condition[:, 3, 4] = 0.7
    cut = given.in_windows(3, 0, I2V)
    masks = [cut.in_window(window).condition[0, 3, :, 0, 0] for window in cut.windows]
    expected = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.7, 0.0], [0.0, 0.0, 0.0, 1.0]]
    torch.testing.assert_close(masks, [torch.tensor(each) for each in expected])


def test_a_window_of_the_whole_clip_sees_both_images() -> None:
    spy = Spy()
    cond_velocity(spy, cond(rows(0, 6)).in_windows(9, 2, FLF))(torch.zeros(1, 16, FRAMES, 2, 2), 500.0)
    assert spy.seen == [(list(range(9)), list(range(6)), None)]


def test_guidance_asks_each_window_twice_and_what_moves_weights_is_told() -> None:
    spy, brought = Spy(), []
    conds, noise = lengthened(WINDOWS, [cond(rows(0, 6))] * 2, torch.randn(1, 16, FRAMES, 2, 2), FLF, seed=1)
    velocity = velocity_of(
        [Denoiser(transformer=spy)], conds, 3.0, lambda now, then, forwards: brought.append(forwards)
    )
    torch.testing.assert_close(velocity(noise, 500.0), noise)
    assert brought == [len(spy.seen)] == [6]


def test_a_clip_that_is_short_enough_is_made_as_ever_and_that_is_said() -> None:
    given, noise, told = [cond(None)], torch.randn(1, 16, FRAMES, 2, 2), []
    config = replace(FLF, trained_frames=241)  # its time has a turn of 63 latent frames
    with listening(told.append):
        for longer in (Longer(way="riflex"), Longer(way="windows", window=33), Longer()):
            conds, found = lengthened(longer, given, noise, config, seed=1)
            assert conds[0] is given[0]
            assert torch.equal(found, noise)
    assert told == [
        "riflex acts on clips of more than 249 frames, and this one has 33; it changes nothing",
        "windows acts on clips of more than 33 frames, and this one has 33; it changes nothing",
    ]


def test_one_forward_sees_a_window() -> None:
    size = Grid(frames=161, height=480, width=832)
    assert Longer(way="windows").grid(size).in_a_forward.latent_frames == 22
    assert Longer(way="riflex").grid(size).in_a_forward == size
    assert Longer(way="windows", window=161).grid(size) == size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"way": "window"}, "longer='window' is not known; use plain, riflex, windows"),
        ({"window": 80}, "window=80 is not 4n"),
        ({"overlap": -4}, "overlap=-4 can't be used"),
        ({"window": 17, "overlap": 28}, "overlap=28 leaves nothing new in a window of 17 frames; give at most 16"),
    ],
)
def test_windows_that_can_not_be(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Longer(**{"way": "windows"} | values)
