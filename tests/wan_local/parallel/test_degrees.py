"""Which splits are possible, which one is taken, and what is said about the others."""

from __future__ import annotations

import pytest

from wan_local.errors import InputError
from wan_local.parallel import yunchang_backend
from wan_local.parallel.degrees import Degrees, check, choose, divisors
from wan_local.parallel.setup import check_backend

HEADS = 40


@pytest.mark.parametrize(
    ("gpus", "guided", "expected"),
    [
        (1, True, (1, 1, 1)), (2, True, (2, 1, 1)), (3, True, (1, 1, 3)), (4, True, (2, 2, 1)), (5, True, (1, 5, 1)),
        (6, True, (2, 1, 3)), (7, True, (1, 1, 7)), (8, True, (2, 4, 1)), (16, True, (2, 8, 1)), (2, False, (1, 2, 1)),
        (4, False, (1, 4, 1)), (8, False, (1, 8, 1)), (6, False, (1, 2, 3)), (12, False, (1, 4, 3)),
    ],
)  # fmt: skip
def test_the_best_split(gpus: int, guided: bool, expected: tuple[int, int, int]) -> None:
    found, why = choose(gpus, HEADS, guided=guided)
    assert (found.cfg, found.ulysses, found.ring) == expected
    assert str(found) in why
    check(found, HEADS, gpus)


@pytest.mark.parametrize("gpus", range(1, 33))
@pytest.mark.parametrize("guided", [True, False])
def test_every_number_of_gpus_has_a_split(gpus: int, guided: bool) -> None:
    found, _ = choose(gpus, HEADS, guided=guided)
    check(found, HEADS, gpus)
    assert guided or found.cfg == 1


def test_wishes_are_kept() -> None:
    assert choose(8, HEADS, cfg=1)[0] == Degrees(ulysses=8)
    assert choose(8, HEADS, ring=2)[0] == Degrees(cfg=2, ulysses=2, ring=2)
    assert choose(8, HEADS, ulysses=2)[0] == Degrees(cfg=2, ulysses=2, ring=2)
    assert choose(8, HEADS, cfg=1, ring=8)[0] == Degrees(ring=8)
    assert choose(4, HEADS, cfg=2, guided=False)[0] == Degrees(cfg=2, ulysses=2)
    found, why = choose(4, HEADS, ulysses=2, ring=1, guided=False)  # nothing else is left
    assert found == Degrees(cfg=2, ulysses=2)
    assert "half of the GPUs repeat the work of the other half, since guidance is 1" in why


@pytest.mark.parametrize(
    ("gpus", "wishes", "match"),
    [
        (0, {}, "gpus=0 can't be used"),
        (3, {"ulysses": 3}, "ulysses=3 does not divide the 40 heads .* use one of 1, 2, 4, 5, 8, 10"),
        (4, {"cfg": 2, "ulysses": 4, "ring": 1}, "makes 8 GPUs, and gpus=4"),
        (4, {"cfg": 3}, "cfg=3 does not go with gpus=4"),
        (4, {"ulysses": 8}, "ulysses=8 does not go with gpus=4"),
        (3, {"cfg": 2}, "cfg=2 does not go with gpus=3"),
        (4, {"ring": 3}, "ring=3 does not go with gpus=4"),
    ],
)
def test_what_does_not_go_together_is_told(gpus: int, wishes: dict[str, int], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        choose(gpus, HEADS, **wishes)
    assert "\n" not in str(caught.value)


def test_divisors() -> None:
    assert divisors(40, 8) == [1, 2, 4, 5, 8]
    assert divisors(7, 3) == [1]


@pytest.mark.parametrize(
    ("installed", "backend", "words"),
    [
        ({}, "yunchang", 'yunchang is not installed; run `pip install "yunchang>=0.6.4,<0.7"`'),
        ({"yunchang": "0.6.3.post1"}, "yunchang", "yunchang 0.6.3.post1 takes no kernel of ours"),
        ({"yunchang": "0.6.4"}, "yunchang", None),
        ({}, "xfuser", "xfuser is not used here"),
        ({"xfuser": "0.7.0", "yunchang": "0.6.4"}, "xfuser", "xfuser 0.7.0 can't run .* with yunchang 0.6.4"),
        ({"xfuser": "0.5.0"}, "xfuser", "xfuser 0.5.0 can't run .* with yunchang none"),
        ({"xfuser": "0.4.5", "yunchang": "0.6.4"}, "xfuser", "xfuser 0.4.5 is yunchang 0.6.4 underneath; use yunchang"),
        ({}, "nccl", "it is not known"),
        ({}, "own", None),
    ],
)
def test_what_carries_attention_is_looked_at_first(monkeypatch, installed, backend: str, words: str | None) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise yunchang_backend.PackageNotFoundError
        return installed[name]

    monkeypatch.setattr(yunchang_backend, "version", version)
    if words is None:
        check_backend(backend)
        return
    with pytest.raises(InputError, match=words):
        check_backend(backend)
