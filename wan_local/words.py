"""Words that follow a number."""

from __future__ import annotations


def counted(number: int, one: str) -> str:
    """A number with the name of what it counts: "1 clip", "2 clips", "0 clips", "1,560 tokens".

    Args:
        number: how many there are.
        one: the name of one, whose plural ends in s.
    """
    return f"{number:,} {one}{'' if number == 1 else 's'}"
