"""``python -m benchmarks.keyframes_in_windows``: clips longer than the model was trained on, whatever that is."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import keyframes_in_windows as benchmark
from benchmarks.keyframes_in_windows import SIZE, WAYS, WINDOWS


class Pipeline:
    """Grey clips of a model that was trained on so many frames."""

    def __init__(self, frames: int) -> None:
        self.transformer = SimpleNamespace(config=SimpleNamespace(trained_frames=frames))
        self.asked: list[dict[str, Any]] = []

    def __call__(self, *images: object, **asked: Any) -> Tensor:
        self.asked.append(asked)
        return torch.full((asked["length"], SIZE, SIZE, 3), 0.5)


@pytest.mark.parametrize(("frames", "length", "middle"), [(17, 33, 16), (33, 65, 32)])
def test_a_clip_is_longer_than_those_of_training_and_a_window_as_long(
    frames: int, length: int, middle: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = Pipeline(frames)
    monkeypatch.setattr(benchmark.Pipeline, "from_pretrained", lambda *where, **device: pipeline)
    monkeypatch.setattr(sys, "argv", ["keyframes_in_windows", "--clips", "1"])
    benchmark.main()
    assert {asked["length"] for asked in pipeline.asked} == {length}
    assert {asked["longer"].way for asked in pipeline.asked} == set(WAYS)
    assert {asked["longer"].window for asked in pipeline.asked if asked["longer"].way == WINDOWS} == {frames}
    assert {frame.frame for asked in pipeline.asked for frame in asked["keyframes"]} == {middle}
    assert f"frame {middle}, not given" in capsys.readouterr().out
