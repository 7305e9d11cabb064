"""One side makes, the other uses: both at once, and neither outlives the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wan_local import video
from wan_local.errors import NumericError
from wan_local.handover import hand_over


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_all_items_arrive_in_order_and_the_result_comes_back() -> None:
    assert hand_over(iter(range(20)), lambda items: list(items)) == list(range(20))


def test_items_are_made_while_others_are_used() -> None:
    """The first is not done with until the second is being made."""
    second = threading.Event()

    def make() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    def use(items: Iterator[int]) -> list[bool]:
        return [second.wait(10) for _ in items]

    assert hand_over(make(), use) == [True, True]


def test_few_items_wait_for_a_slow_user() -> None:
    made: list[int] = []
    used = 0

    def make() -> Iterator[int]:
        for number in range(30):
            made.append(number)
            assert len(made) - used <= 2 + 2  # in the queue, in either hand
            yield number

    def use(items: Iterator[int]) -> None:
        nonlocal used
        for _ in items:
            used += 1

    hand_over(make(), use, waiting=2)
    assert used == 30


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_the_maker_ends_the_user(error: type[BaseException]) -> None:
    finished = []

    def make() -> Iterator[int]:
        yield 1
        raise error("made badly")

    def use(items: Iterator[int]) -> None:
        try:
            list(items)
            finished.append("all")
        finally:
            finished.append("cleaned up")

    with pytest.raises(error, match="made badly"):
        hand_over(make(), use)
    assert finished == ["cleaned up"]


def test_an_error_of_the_user_ends_a_maker_without_end() -> None:
    def make() -> Iterator[int]:
        while True:
            yield 1

    def use(items: Iterator[int]) -> None:
        next(items)
        raise ValueError("used badly")

    with pytest.raises(ValueError, match="used badly"):
        hand_over(make(), use)


def test_a_user_who_needs_no_more_is_no_error() -> None:
    assert hand_over(iter(range(100)), lambda items: next(items)) == 0


@pytest.mark.parametrize("at", ["decoding", "encoding"])
def test_a_video_that_fails_in_the_middle_leaves_nothing(at: str, tmp_path: Path) -> None:
    def chunks() -> Iterator[torch.Tensor]:
        yield torch.rand(4, 32, 32, 3)
        if at == "decoding":
            raise NumericError("NaN or infinity")
        while True:
            yield torch.full((4, 32, 32, 3), torch.nan)

    with pytest.raises(NumericError, match="NaN or infinity"):
        video.write(chunks(), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []
