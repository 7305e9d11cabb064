"""Repairs of clips whose truth is known, and of everything that a person may connect instead."""

from __future__ import annotations

import json
import math
import weakref

import pytest
import torch

from tests.wan_local.ends import clips
from tests.wan_local.ends.clips import Case
from tests.wan_local.ends.figures import gain, jump, nano, repaired
from wan_local import ends, images
from wan_local.ends import repairing
from wan_local.errors import Cancelled, InputError, NumericError
from wan_local.progress import Progress
from wan_local.settings import REPAIRS
from wan_local.video import to_uint8

FEW = ("slow pan", "shape")


def bits(image: torch.Tensor) -> torch.Tensor:
    """``[3, H, W]`` as the bytes of a frame."""
    return to_uint8(image.permute(1, 2, 0))


# -- what it is for ----------------------------------------------------------------------------------------------


def test_a_drifted_clip_comes_back() -> None:
    for case in clips.drift(FEW):
        for how in ("colour", "exact"):
            got = gain(case, repaired(case, how))
            print(f"{case.scene}, {how}: {got.whole:+.2f} dB, jump {got.jump:.2f}")
            assert got.whole >= 4.0
            # Drift that dims an end dims what moves there, too; the truth has it back.
            assert got.jump <= max(1.05 if how == "colour" else 1.3, jump(case.truth) / jump(case.decoded))


def test_what_needs_nothing_loses_nothing() -> None:
    jumps = []
    for case in clips.clean(FEW):
        colour, exact = gain(case, repaired(case, "colour")), gain(case, repaired(case))
        print(f"{case.scene}: colour {colour.whole:+.2f}, exact {exact.whole:+.2f} dB, jump {exact.jump:.2f}")
        assert colour.whole >= -0.1
        assert colour.jump <= 1.05
        assert exact.whole >= 0
        assert exact.worst >= -0.1
        jumps.append(exact.jump)
    assert max(jumps) <= 1.3
    assert sum(jumps) / len(jumps) <= 1.05


def test_a_clip_of_the_bundled_model_loses_nothing() -> None:
    (case,) = nano(1, steps=6)
    colour, exact = gain(case, repaired(case, "colour")), gain(case, repaired(case))
    print(f"nano: colour {colour.whole:+.2f}, exact {exact.whole:+.2f} dB, jump {exact.jump:.2f}")
    assert colour.whole >= -0.1
    assert exact.whole >= 0
    assert exact.jump <= 1.3


@pytest.mark.parametrize("scene", ["zoom", "shape"])
def test_an_end_that_landed_beside_its_image_is_said_and_spares_the_others(scene: str) -> None:
    for case in clips.misplaced([scene]):
        done = repaired(case)
        got = gain(case, done)
        print(f"{case.kind}, {scene}: worst inner frame {got.worst:+.2f} dB; {done.notes()}")
        assert got.worst >= -0.5
        (note,) = [line for line in done.notes() if "beside its image" in line]
        assert note.startswith(("last landed 2.", "last landed 3."))
        assert torch.equal(to_uint8(done.frames[-1]), bits(case.last))


@pytest.mark.parametrize("scene", ["slow pan", "zoom"])  # near the end; over it, so that the image shows it
def test_true_lightning_stays(scene: str) -> None:
    case = clips.lightning([scene])[0]
    for how in ("colour", "exact"):
        got = gain(case, repaired(case, how))
        print(f"{scene} {case.flash}, {how}: {got.whole:+.2f} dB")
        assert got.whole >= -0.1
    if scene == "zoom":
        assert repaired(case, remove_flash=True).levelled == ()


def test_a_flash_that_the_image_denies_goes() -> None:
    (case,) = clips.flash(["slow pan"])
    done = repaired(case)
    assert done.levelled == case.flash
    assert gain(case, done).whole > 8
    assert done.after.jump < 0.5 * done.before.jump
    assert "a flash was taken out of frames 22, 23, 24" in str(done)


def test_a_flash_that_no_image_tells_from_light_stays_unless_told() -> None:
    (case,) = clips.flash(["shape over photo"])
    assert repaired(case, "colour").levelled == ()
    told = repaired(case, "colour", remove_flash=True)
    assert told.levelled == case.flash
    assert gain(case, told).whole > gain(case, repaired(case, "colour")).whole + 2


# -- exact ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> Case:
    (case,) = clips.drift(["zoom"])
    return case


def test_given_frames_are_their_images_bit_for_bit(clip: Case) -> None:
    middle = clip.truth[12].permute(2, 0, 1)
    done = ends.repair(clip.decoded, {0: clip.first, 12: middle, 24: clip.last}, "exact")
    for at, image in ((0, clip.first), (12, middle), (24, clip.last)):
        assert torch.equal(to_uint8(done.frames[at]), bits(image))
    assert done.frames.shape == clip.decoded.shape
    assert done.after.first is not None
    assert done.after.first.psnr == math.inf
    assert list(done.after.matches) == [0, 12, 24]
    both = gain(clip, repaired(clip)).inner
    assert gain(clip, done).inner > both, "a third image says more"


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_images_of_other_sizes_are_fitted_as_the_pipeline_does_it(clip: Case, fit: str) -> None:
    tall = images.resize(clip.first, 90, 200)
    done = ends.repair(clip.decoded[:5], {0: tall}, "exact", fit=fit)
    wanted = images.fit_image(tall, 128, 96, fit).clamp(0, 1)
    assert torch.equal(to_uint8(done.frames[0]), bits(wanted))


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_clips_of_few_frames(clip: Case, length: int) -> None:
    given = {0: clip.first} if length == 1 else {0: clip.first, length - 1: clip.last}
    for how in REPAIRS:
        done = ends.repair(clip.decoded[:length], given, how)
        assert torch.isfinite(done.frames).all()
        assert len(done.frames) == length
        json.dumps(done.as_json(), allow_nan=False)
    assert torch.equal(to_uint8(done.frames[0]), bits(clip.first))


@pytest.mark.parametrize(("at", "others"), [(0, 24), (24, 0)])
def test_one_end_alone(clip: Case, at: int, others: int) -> None:
    image = clip.first if at == 0 else clip.last
    done = ends.repair(clip.decoded, {at: image}, "exact")
    assert torch.equal(to_uint8(done.frames[at]), bits(image))
    assert list(done.before.matches) == [at]
    far = clips.by_frame(done.frames, clip.truth)[others]
    assert torch.isfinite(far)


def test_report_changes_nothing_and_needs_no_image(clip: Case) -> None:
    done = ends.repair(clip.decoded, {})
    assert done.frames is clip.decoded
    assert done.before.matches == {}
    assert "jitter" in str(done)
    assert "->" not in str(done)


def test_the_clip_that_was_given_stays_as_it_was(clip: Case) -> None:
    before = clip.decoded.clone()
    repaired(clip)
    assert torch.equal(clip.decoded, before)


def test_half_precision_frames_are_taken(clip: Case) -> None:
    done = ends.repair(clip.decoded[:6].half(), {0: clip.first}, "exact")
    assert done.frames.dtype == torch.float32
    assert torch.equal(to_uint8(done.frames[0]), bits(clip.first))


def test_few_frames_are_held_at_a_time(clip: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame that is worked on goes through one place."""
    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []
    real = repairing._Work._taken

    def taken(self: object, frames: torch.Tensor, at: int) -> torch.Tensor:
        frame = real(self, frames, at).clone()
        held.add(frame)
        most.append(len(held))
        return frame

    monkeypatch.setattr(repairing._Work, "_taken", taken)
    repaired(clip)
    print(f"{max(most)} frames held of {len(clip.decoded)}, {len(most)} taken")
    assert len(most) > 2 * len(clip.decoded)
    assert max(most) <= 16


def test_it_can_be_stopped_and_says_how_far_it_is(clip: Case) -> None:
    told: list[Progress] = []
    ends.repair(clip.decoded[:6], {0: clip.first}, "exact", on_progress=told.append)
    for stage in ("match colours", "match ends"):
        shares = [each.done / each.total for each in told if each.stage == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1

    def stop(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ends.repair(clip.decoded[:6], {0: clip.first}, "exact", on_progress=stop)


# -- what can't be -----------------------------------------------------------------------------------------------

WRONG = [
    ({"how": "sharpen"}, "repair='sharpen' is not known; use report, colour, exact"),
    ({"reach": 0}, "reach=0 can't be used; give a number of frames from 1 to 64"),
    ({"reach": 2.5}, "reach=2.5 can't be used"),
    ({"fit": "zoom"}, "fit='zoom' is not known"),
    ({"images": {}}, "repair=exact needs an image; give the first, the last or a keyframe, or leave the repair out"),
    ({"how": "colour", "only_measured": [0]}, "repair=colour needs an image of full strength; give the first, the "),
    ({"images": {25: 0}}, "an image is given for frame 25 and the clip has 25; use 0 to 24"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_can_not_be_is_said(clip: Case, change: dict, message: str) -> None:
    given = {at: clip.first for at in change.pop("images", {0: 0})}
    with pytest.raises(InputError) as error:  # noqa: PT011
        ends.repair(clip.decoded, given, change.pop("how", "exact"), **change)
    assert message in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_frame_that_is_no_number_is_named(clip: Case, value: float) -> None:
    frames = clip.decoded.clone()
    frames[3, 5, 5, 1] = value
    for how in REPAIRS:
        with pytest.raises(NumericError, match="frame 3 holds NaN or infinity"):
            ends.repair(frames, {0: clip.first}, how)


def test_flat_and_black_clips_stay_sound() -> None:
    for grey in (0.0, 0.5, 1.0):
        frames = torch.full((12, 20, 24, 3), grey)
        done = ends.repair(frames, {0: torch.full((3, 20, 24), 0.4), 11: torch.full((3, 20, 24), grey)}, "exact")
        assert torch.isfinite(done.frames).all()
        assert (done.frames >= 0).all()
        assert (done.frames <= 1).all()
        json.dumps(done.as_json(), allow_nan=False)


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (9, 7)])
def test_the_smallest_frames(size: tuple[int, int]) -> None:
    frames = torch.rand(10, *size, 3, generator=torch.Generator().manual_seed(0))
    done = ends.repair(frames, {0: frames[1].permute(2, 0, 1)}, "exact")
    assert torch.isfinite(done.frames).all()
