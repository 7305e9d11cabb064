"""Chains: what is made, what is kept, what goes over from clip to clip, and how joins are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wan_local.test_generate import make_pipeline
from wan_local import chain as chains
from wan_local import kept
from wan_local.chain import Chain, Segment, returning, segments_of, split_prompts, tell_of_stills
from wan_local.errors import InputError, NumericError, OutputError
from wan_local.generate import Pipeline
from wan_local.joins import Joins
from wan_local.keyframes import Keyframe
from wan_local.longer import Longer
from wan_local.notices import listening
from wan_local.progress import Progress
from wan_local.settings import Settings

F = 13
SETTINGS = Settings(length=F, steps=1, seed=3, guidance=1.0)


def image(seed: int) -> torch.Tensor:
    return torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(seed))


IMAGES = [image(1), image(2), image(3)]


@pytest.fixture(scope="module")
def one() -> Pipeline:
    return make_pipeline()


@pytest.fixture(scope="module")
def continuing() -> Pipeline:
    """A model that takes a piece of a clip: one of Wan2.2's experts, which has no image branch."""
    pipeline = make_pipeline(image_dim=0, image_tokens=0)
    pipeline.image_encoder = None
    return pipeline


class Counted:
    """A pipeline whose runs are counted; it may fail or be stopped at one of them."""

    def __init__(self, pipeline: Pipeline, fails_at: int = 0, error: BaseException | None = None) -> None:
        self._pipeline, self._fails_at, self._error = pipeline, fails_at, error
        self.prompts: list[str] = []
        self.given: list[list[Keyframe]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._pipeline, name)

    def generate(self, first: None, last: None, prompt: str, *rest: object, keyframes: list[Keyframe]) -> object:
        self.prompts.append(prompt)
        self.given.append(keyframes)
        if self._error is not None and len(self.prompts) == self._fails_at:
            raise self._error
        return self._pipeline.generate(first, last, prompt, *rest, keyframes=keyframes)


def run(pipeline: object, segments: list[Segment], folder: Path | None = None, *, loop: bool = False) -> torch.Tensor:
    """All frames of a chain, ``[n, H, W, 3]``."""
    chain = Chain(pipeline, segments, SETTINGS, loop=loop, folder=folder, model="m")
    with listening(lambda text: None):
        frames = torch.cat(list(chain.decode_stream(chain.sample())))
    assert len(frames) == chain.frames
    return frames


# -- what is made ----------------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_clips_and_each_join_once(one: Pipeline) -> None:
    found = run(one, segments_of(IMAGES, ["a disc", "a square"]))
    clips = [
        one(IMAGES[index], IMAGES[index + 1], prompt, length=F, steps=1, seed=3, guidance=1.0)
        for index, prompt in enumerate(("a disc", "a square"))
    ]
    assert torch.equal(found, torch.cat([clips[0], clips[1][1:]]))


def test_a_loop_ends_before_it_begins_again(one: Pipeline) -> None:
    found = run(one, segments_of(IMAGES[:2], ["a disc"], loop=True), loop=True)
    there, back = (
        one(*pair, "a disc", length=F, steps=1, seed=3, guidance=1.0) for pair in (IMAGES[:2], IMAGES[1::-1])
    )
    assert torch.equal(found, torch.cat([there, back[1:-1]]))


def test_without_a_last_image_the_bridge_begins_where_the_clip_ended(one: Pipeline) -> None:
    counted = Counted(one)
    start = Keyframe(images=IMAGES[0][None], frame=0)
    segments = [Segment(prompt="a disc", keyframes=(start,)), returning("a disc", [start], F)]
    frames = run(counted, segments, loop=True)
    bridge = {each.frame: each.images for each in counted.given[1]}
    assert torch.equal(bridge[0], frames[F - 1 : F].movedim(-1, 1))
    assert torch.equal(bridge[-1], IMAGES[:1][0][None])


def test_a_model_that_continues_clips_is_given_the_frames_before(continuing: Pipeline) -> None:
    counted = Counted(continuing)
    frames = run(counted, segments_of(IMAGES, ["a disc"], loop=True), loop=True)
    assert len(frames) == 3 * F - 3 * 5
    first, second, third = ({each.frame: each.images for each in given} for given in counted.given)
    assert list(first) == [0, -1]
    assert torch.equal(second[0], frames[F - 5 : F].movedim(-1, 1))
    assert torch.equal(second[-1], IMAGES[2][None])
    assert torch.equal(third[-5], frames[:5].movedim(-1, 1))


def test_images_are_found_again_in_the_whole(one: Pipeline, continuing: Pipeline) -> None:
    """What a clip takes over from the one before is no image; a loop goes over into its first."""

    def places(pipeline: Pipeline, *, loop: bool) -> dict[int, int]:
        chain = Chain(pipeline, segments_of(IMAGES, ["a disc"], loop=loop), SETTINGS, loop=loop)
        return {
            frame: next(index for index, image in enumerate(IMAGES) if torch.equal(image, each.images[0]))
            for frame, each in chain.given().items()
        }

    assert places(one, loop=False) == {0: 0, F - 1: 1, 2 * F - 2: 2}
    assert places(one, loop=True) == {0: 0, F - 1: 1, 2 * F - 2: 2, 3 * F - 3: 0}
    assert places(continuing, loop=False) == {0: 0, F - 1: 1, 2 * F - 6: 2}
    assert places(continuing, loop=True) == {0: 0, F - 1: 1, 2 * F - 6: 2, 3 * F - 15: 0}


@pytest.mark.parametrize("loop", [False, True])
def test_a_repair_sees_what_a_loop_goes_over_into(one: Pipeline, loop: bool) -> None:
    chain = Chain(one, segments_of(IMAGES, ["a disc"], loop=loop), SETTINGS, loop=loop)
    made = torch.arange(float(chain.frames)).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)
    seen: list[Tensor] = []

    def repair(frames: Tensor, given: Mapping[int, Keyframe]) -> Any:
        seen.append(frames)
        assert max(given) == len(frames) - 1
        return SimpleNamespace(frames=frames + 1)

    repaired, _ = chain.repaired(iter([made]), repair)
    assert len(seen[0]) == chain.frames + loop
    assert torch.equal(seen[0][-1], made[0] if loop else made[-1])
    assert torch.equal(torch.cat(list(repaired)), made + 1)


def test_progress_tells_which_clip(one: Pipeline) -> None:
    told: list[Progress] = []
    chain = Chain(one, segments_of(IMAGES, ["a disc"]), SETTINGS)
    list(chain.decode_stream(chain.sample(told.append), told.append))
    assert {each.parts for each in told} == {2}
    parts = [each.part for each in told if each.stage == "sample"]
    assert parts == sorted(parts)
    assert set(parts) == {1, 2}


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_after_a_stop_it_goes_on_where_it_was(one: Pipeline, tmp_path: Path) -> None:
    segments, told = segments_of(IMAGES, ["a disc"]), []
    stopped = Counted(one, fails_at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), listening(told.append):
        Chain(stopped, segments, SETTINGS, folder=tmp_path).sample()
    assert told == ["clip 2 of 2 was not made; the same chain goes on, with 1 clip kept"]
    again = Counted(one)
    chain = Chain(again, segments, SETTINGS, folder=tmp_path)
    assert chain.made_before() == 1
    sampled = chain.sample()
    assert len(again.prompts) == 1
    assert torch.equal(torch.cat(list(chain.decode_stream(sampled))), run(one, segments))


def test_a_clip_that_fails_leaves_those_before(one: Pipeline, tmp_path: Path) -> None:
    failing = Counted(one, fails_at=2, error=NumericError("step 1 gave NaN"))
    with pytest.raises(NumericError, match="step 1 gave NaN"), listening(lambda text: None):
        Chain(failing, segments_of(IMAGES, ["a disc"]), SETTINGS, folder=tmp_path).sample()
    assert len(list(tmp_path.glob("*" + kept.SUFFIX))) == 1


def test_only_what_changed_runs_again(one: Pipeline, tmp_path: Path) -> None:
    def made(images: list[torch.Tensor], prompts: list[str]) -> list[str]:
        counted = Counted(one)
        run(counted, segments_of(images, prompts), tmp_path)
        return counted.prompts

    more = [*IMAGES, image(4)]
    assert made(more, ["a", "b", "c"]) == ["a", "b", "c"]
    assert made(more, ["a", "b", "c"]) == []
    assert made(more, ["a", "other", "c"]) == ["other"]
    assert made([more[0], image(5), more[2], more[3]], ["a", "b", "c"]) == ["a", "b"]
    assert made([more[0], more[1], image(6), *more[2:]], ["a", "b", "b", "c"]) == ["b", "b"]


def test_what_goes_on_from_a_changed_clip_changes_too(continuing: Pipeline, tmp_path: Path) -> None:
    for prompts, expected in (
        (["a", "b"], ["a", "b"]),
        (["a", "other"], ["other"]),
        (["new", "other"], ["new", "other"]),
    ):
        counted = Counted(continuing)
        run(counted, segments_of(IMAGES, prompts), tmp_path)
        assert counted.prompts == expected


def test_other_weights_and_settings_are_other_clips(one: Pipeline, tmp_path: Path) -> None:
    segments = segments_of(IMAGES[:2], ["a disc"])
    Chain(one, segments, SETTINGS, folder=tmp_path, model="m").sample()
    slower = replace(SETTINGS, longer=Longer(way="riflex"))
    for settings, model in ((SETTINGS, "n"), (replace(SETTINGS, seed=4), "m"), (slower, "m")):
        assert Chain(one, segments, settings, folder=tmp_path, model=model).made_before() == 0
    no_windows = replace(SETTINGS, longer=Longer(window=9, overlap=4))
    assert Chain(one, segments, no_windows, folder=tmp_path, model="m").made_before() == 1


def test_an_image_that_counts_otherwise_is_another_clip(one: Pipeline, tmp_path: Path) -> None:
    first, last = segments_of(IMAGES[:2], ["a disc"])[0].keyframes

    def chain(keyframe: Keyframe) -> Chain:
        return Chain(one, [Segment(prompt="a disc", keyframes=(keyframe, last))], SETTINGS, folder=tmp_path)

    chain(first).sample()
    assert chain(replace(first)).made_before() == 1
    for changed in ({"strength": 0.7}, {"low_noise_strength": 0.3}, {"whole_group": True}):
        assert chain(replace(first, **changed)).made_before() == 0, changed


def test_a_bridge_to_a_changed_beginning_is_another_clip(one: Pipeline, tmp_path: Path) -> None:
    """Where the clip has no first image, the bridge ends at what its first frame became."""
    last = Keyframe(images=IMAGES[1][None], frame=-1)

    def chain(middle: Tensor) -> Chain:
        given = (Keyframe(images=middle[None], frame=4), last)
        segments = [Segment(prompt="a disc", keyframes=given), returning("a disc", given, F)]
        return Chain(one, segments, SETTINGS, loop=True, folder=tmp_path)

    chain(IMAGES[0]).sample()
    assert chain(IMAGES[0]).made_before() == 2
    assert chain(IMAGES[2]).made_before() == 0


def test_a_kept_file_that_is_cut_short_is_made_again(one: Pipeline, tmp_path: Path) -> None:
    segments = segments_of(IMAGES[:2], ["a disc"])
    expected = run(one, segments, tmp_path)
    (path,) = tmp_path.glob("*" + kept.SUFFIX)
    path.write_bytes(path.read_bytes()[:-100])
    assert torch.equal(run(one, segments, tmp_path), expected)


def test_a_full_disk_loses_no_clip(one: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OutputError("can't write: No space left on device")

    monkeypatch.setattr(chains.kept, "write", full)
    segments, told = segments_of(IMAGES, ["a disc"]), []
    with listening(told.append):
        chain = Chain(one, segments, SETTINGS, folder=tmp_path)
        found = torch.cat(list(chain.decode_stream(chain.sample())))
    assert [text for text in told if "clip 1 could not be kept (can't write: No space left" in text]
    assert torch.equal(found, run(one, segments))
    told.clear()
    stopped = Counted(one, fails_at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), listening(told.append):
        Chain(stopped, segments, SETTINGS, folder=tmp_path).sample()
    assert told[-1] == "clip 2 of 2 was not made; the same chain begins again, with no clip kept"


# -- what can't be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        ([], ["a"], "no image is given and a chain goes from image to image; give 2 or more"),
        (IMAGES[:1], ["a"], "1 image is given"),
        (
            IMAGES,
            ["a", "b", "c"],
            "3 prompts are given for 2 clips; give one for all, or one for each, with a line ---",
        ),
        (IMAGES[:2], ["a", "b"], "2 prompts are given for 1 clip; give one"),
        (IMAGES, ["a", " "], "a prompt between two lines --- is empty"),
    ],
)
def test_what_is_no_chain_is_refused(images: list[torch.Tensor], prompts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        segments_of(images, prompts)


def test_an_empty_chain_and_one_without_room_are_refused(one: Pipeline, continuing: Pipeline) -> None:
    with pytest.raises(InputError, match="the chain has no clip"):
        Chain(one, [], SETTINGS)
    with pytest.raises(InputError, match="no image is given"):
        Chain(one, [Segment(prompt="a")], SETTINGS)
    short = Settings(length=9, steps=1)
    with pytest.raises(InputError, match="clips of 9 frames have no room for the 5 frames .* use 13 or more"):
        Chain(continuing, segments_of(IMAGES, ["a"]), short)
    Chain(one, segments_of(IMAGES, ["a"]), short)


def test_prompts_are_separated_by_lines() -> None:
    assert split_prompts("a disc\nmoves") == ["a disc\nmoves"]
    assert split_prompts("a\n---\nb --- c\n --- \nd\n") == ["a", "b --- c", "d"]


def test_a_clip_between_the_same_image_is_told_of() -> None:
    told: list[str] = []
    with listening(told.append):
        tell_of_stills(segments_of([IMAGES[0], IMAGES[1]], ["a"]), F)
        assert told == []
        tell_of_stills(segments_of([IMAGES[0], IMAGES[0].clone(), IMAGES[1]], ["a"]), F)
    assert told == [
        "clip 1 of 2 begins and ends at the same image, and such clips stand nearly still; put another image between "
        "them"
    ]


# -- joins -----------------------------------------------------------------------------------------------------------


def test_a_join_is_measured_against_all_other_frames() -> None:
    """Steps of 0.01 and one of 0.05; then a closed clip whose end is 0.09 from its beginning."""
    levels = torch.tensor([0.1, 0.11, 0.12, 0.17, 0.18, 0.19])
    frames = levels.view(6, 1, 1, 1).expand(6, 4, 4, 3)
    joins = Joins([3], closed=True)
    passed = torch.cat(list(joins.passing(iter([frames[:1], frames[1:4], frames[4:]]))))
    assert torch.equal(passed, frames)
    first, closing = joins.report()
    assert (first.frame, closing.frame) == (3, 0)
    assert first.jump == pytest.approx(5.0, rel=1e-3)
    assert closing.jump == pytest.approx(9.0, rel=1e-3)
    assert 0 < first.colour < closing.colour
    assert str(first).startswith("join at frame 3: jump x5.0, colour dE76 ")
