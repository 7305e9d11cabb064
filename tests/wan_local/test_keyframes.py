"""Images at any frame: where they may stand, what the mask says of them, and what the models are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline

from tests.wan_local.vae.vae_names import to_official
from wan_local.conditioning import conditions, ends_seen, known_mask
from wan_local.config import VAEConfig
from wan_local.denoiser import pair_of, velocity_of
from wan_local.errors import InputError
from wan_local.keyframes import Keyframe, placed, strengths, tell_of_moves
from wan_local.memory import FittingVAE
from wan_local.notices import listening
from wan_local.sampling import Cond
from wan_local.shapes import Grid
from wan_local.vae import WanVAE

GRID = Grid(frames=17, height=16, width=32)


def picture(seed: int = 1, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 16, 32, generator=torch.Generator().manual_seed(seed))


def at(frame: int, **more: object) -> Keyframe:
    return Keyframe(**{"images": picture(int(frame) % 97), "frame": frame, **more})


# -- where they stand ------------------------------------------------------------------------------------------------


def test_frames_count_from_either_end_and_come_in_order() -> None:
    given = placed([at(-1), at(8), at(0), at(-13)], 17)
    assert list(given) == [0, 4, 8, 16]
    assert torch.equal(given[16].images, picture(96))


@pytest.mark.parametrize(
    ("asked", "place"), [(0, 0), (1, 0), (2, 4), (3, 4), (5, 4), (6, 8), (15, 16), (-2, 16), (-3, 16), (-4, 12)]
)
def test_a_frame_between_is_moved_to_the_nearest_and_said(asked: int, place: int) -> None:
    told: list[str] = []
    with listening(told.append):
        tell_of_moves([at(asked, name="keyframe 1")], 17)
    assert list(placed([at(asked)], 17)) == [place]
    if asked == place:
        assert told == []
    else:
        (line,) = told
        assert f"keyframe 1 at frame {asked} is moved to frame {place}" in line
        assert ("the last" in line) == (place == 16)


def test_a_piece_of_a_clip_gives_each_frame_its_own_image() -> None:
    clip = picture(3, count=9)
    given = placed([Keyframe(images=clip, frame=4, strength=0.5), at(-1)], 17)
    assert list(given) == [*range(4, 13), 16]
    assert all(torch.equal(given[4 + index].images, clip[index : index + 1]) for index in range(9))
    assert strengths(given)[12] == 0.5


REFUSED = {
    "no image is given": [],
    r"two images stand at frame 16: last image and mine; leave one out": [
        at(-1, name="last image"),
        at(16, name="mine"),
    ],
    r"stand at frame 8 \(asked for: 8 and 9\).*at least 4 apart": [at(8), at(9)],
    "at frame 17, outside a clip of 17 frames; use 0 to 16, or -17 to -1": [at(17)],
    "at frame -18, outside": [at(-18)],
    "6 images are given and length=17 has room for 5, one every 4 frames": [
        at(frame) for frame in (0, 4, 8, 12, 16, 1)
    ],
    "piece of 9 frames from frame 12 on, and the clip ends at frame 16; use frame 8 or below": [
        Keyframe(images=picture(1, 9), frame=12)
    ],
    "piece of 21 frames.*give fewer images": [Keyframe(images=picture(1, 21), frame=0)],
    "two images stand at frame 8": [Keyframe(images=picture(1, 9), frame=0), at(8)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_place_is_refused_in_one_line(message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        placed(REFUSED[message], 17)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"strength": 1.5}, "mine has strength=1.5; give a number from 0 to 1"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"low_noise_strength": -0.1}, "low_noise_strength=-0.1"),
        ({"frame": 1.5}, "frame=1.5; give a whole number"),
        ({"images": picture(1, 6)}, "has 6 images; give 1, or a piece of a clip of 4n.1 frames: 5 or 9"),
        ({"images": picture(1, 2)}, "frames: 1 or 5"),
        ({"images": picture()[:0]}, "has 0 images"),
    ],
)
def test_a_value_that_can_not_be_is_named(more: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        at(**{"frame": 4, "name": "mine", **more})


# -- the mask, written out: a row a channel, a column a latent frame -------------------------------------------------


def rows(mask: torch.Tensor) -> list[list[float]]:
    assert torch.equal(mask, mask[..., :1, :1].expand_as(mask))
    return [[round(value, 3) for value in row] for row in mask[0, :, :, 0, 0].tolist()]


ONLY_LAST = [[0, 0, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 1]]
MIDDLE = [[1, 0, 0, 0, 0]] * 3 + [[1, 0, 1, 0, 1]]


def test_each_image_marks_its_own_channel_alone() -> None:
    assert rows(known_mask(GRID, {16: 1.0})) == ONLY_LAST
    assert rows(known_mask(GRID, {-1: 1.0})) == ONLY_LAST
    assert rows(known_mask(GRID, {0: 1.0, 8: 1.0, 16: 1.0})) == MIDDLE
    assert rows(known_mask(GRID, [0, 8, 16])) == MIDDLE


def test_a_strength_is_what_the_mask_says() -> None:
    assert rows(known_mask(GRID, {0: 0.9, 8: 0.5, 16: 0.25})) == [[0.9, 0, 0, 0, 0]] * 3 + [[0.9, 0, 0.5, 0, 0.25]]


def test_the_whole_group_is_four_channels_of_a_middle_image() -> None:
    assert rows(known_mask(GRID, {0: 1.0, 8: 0.5, 16: 1.0}, whole_groups=[8])) == [[1, 0, 0.5, 0, 0]] * 3 + [
        [1, 0, 0.5, 0, 1]
    ]


def test_a_piece_of_a_clip_marks_all_it_covers() -> None:
    start = placed([Keyframe(images=picture(1, 5), frame=0)], 17)
    assert rows(known_mask(GRID, strengths(start))) == [[1, 1, 0, 0, 0]] * 4
    middle = placed([Keyframe(images=picture(1, 5), frame=4)], 17)
    assert rows(known_mask(GRID, strengths(middle))) == [[0, 0, 1, 0, 0]] * 3 + [[0, 1, 1, 0, 0]]
    end = placed([Keyframe(images=picture(1, 5), frame=-5)], 17)
    assert rows(known_mask(GRID, strengths(end))) == [[0, 0, 0, 0, 1]] * 3 + [[0, 0, 0, 1, 1]]


# -- what the models are given ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[FittingVAE, AutoencoderKLWan]:
    """Ours and diffusers', with the same weights."""
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(base_dim=8).eval()
    ours = WanVAE(VAEConfig(dim=8)).eval()
    ours.load_state_dict(to_official(theirs.state_dict()))
    return FittingVAE(ours), theirs


@pytest.mark.parametrize("both", [True, False], ids=["first and last", "first alone"])
def test_the_condition_is_that_of_diffusers(pair: tuple[FittingVAE, AutoencoderKLWan], both: bool) -> None:
    vae, theirs = pair
    pipeline = SimpleNamespace(
        vae=theirs, vae_scale_factor_temporal=4, vae_scale_factor_spatial=8,
        config=SimpleNamespace(expand_timesteps=False),
    )  # fmt: skip
    first, last = picture(1), picture(2)
    with torch.no_grad():
        _, expected = WanImageToVideoPipeline.prepare_latents(
            pipeline, first * 2 - 1, 1, 16, GRID.height, GRID.width, GRID.frames, torch.float32, torch.device("cpu"),
            last_image=last * 2 - 1 if both else None,
        )  # fmt: skip
    given = [Keyframe(images=first, frame=0), *[Keyframe(images=last, frame=-1)] * both]
    ours = conditions(vae, placed(given, GRID.frames), GRID)
    assert ours.low is None
    assert torch.equal(ours.each[:, :4], expected[:, :4])
    error = ((ours.each - expected).norm() / expected.norm()).item()
    print(f"condition against diffusers': relative error {error:.1e}")
    assert error <= 1e-5


def test_a_middle_image_is_the_clip_with_grey_around_it(pair: tuple[FittingVAE, AutoencoderKLWan]) -> None:
    vae, _ = pair
    clip = torch.zeros(1, 3, 17, 16, 32)
    clip[0, :, 8] = picture(8)[0] * 2 - 1
    found = conditions(vae, placed([at(8, strength=0.4)], 17), GRID).each
    assert torch.equal(found[:, 4:], vae.normalise(vae.encode(clip)))
    assert rows(found[:, :4]) == [[0, 0, 0, 0, 0]] * 3 + [[0, 0, 0.4, 0, 0]]


def test_at_strength_0_an_image_is_not_there(pair: tuple[FittingVAE, AutoencoderKLWan]) -> None:
    vae, _ = pair
    without = conditions(vae, placed([at(0)], 17), GRID).each
    assert torch.equal(conditions(vae, placed([at(0), at(8, strength=0.0)], 17), GRID).each, without)
    found = conditions(vae, placed([at(0), at(8, low_noise_strength=0.0)], 17), GRID)
    assert found.low is not None
    assert torch.equal(found.low, without)
    assert torch.equal(found.each, conditions(vae, placed([at(0), at(8)], 17), GRID).each)


def test_each_expert_gets_its_own_strength(pair: tuple[FittingVAE, AutoencoderKLWan]) -> None:
    vae, _ = pair
    found = conditions(vae, placed([at(0), at(8, strength=0.8, low_noise_strength=0.2)], 17), GRID)
    assert found.low is not None
    assert rows(found.each[:, :4])[3] == [1, 0, 0.8, 0, 0]
    assert rows(found.low[:, :4])[3] == [1, 0, 0.2, 0, 0]
    assert torch.equal(found.each[:, 4:], found.low[:, 4:])
    seen = {}

    def expert(name: str):
        def transformer(latents: torch.Tensor, *others: object) -> torch.Tensor:
            seen[name] = latents[:, 16:]
            return latents[:, :16]

        return transformer

    cond = Cond(condition=found.each, text=torch.zeros(1, 1, 4), low_condition=found.low)
    velocity = velocity_of(pair_of(expert("high"), expert("low"), 0.9), [cond], 1.0)
    for timestep in (950.0, 850.0):
        velocity(torch.zeros(1, 16, *GRID.latent_shape), timestep)
    assert torch.equal(seen["high"], found.each)
    assert torch.equal(seen["low"], found.low)


def test_the_image_encoder_sees_the_ends_alone() -> None:
    def seen(*frames: int, most: int = 2) -> tuple[list[float], int]:
        images, which = ends_seen(placed([at(frame) for frame in frames], 17), GRID, most)
        return [image.mean().item() for image in images], which

    first, last = (picture(seed % 97)[0].mean().item() for seed in (0, -1))
    assert seen(0, 8, -1) == ([first, last], 0)
    assert seen(0, 8) == ([first], 0)
    assert seen(8, -1) == ([last], 1)
    assert seen(8) == ([], 1)
    assert seen(0, -1, most=1) == ([first], 0)
    assert seen(-1, most=1) == ([last], 1)
    assert seen(0, -1, most=0) == ([], 0)
    nowhere = placed([at(0, strength=0.0), at(-1, strength=0.2)], 17)
    images, which = ends_seen(nowhere, GRID, 2)
    assert ([image.mean().item() for image in images], which) == ([last], 1)
    piece = placed([Keyframe(images=picture(5, 5), frame=-5)], 17)
    assert torch.equal(ends_seen(piece, GRID, 2)[0][0], picture(5, 5)[-1])
