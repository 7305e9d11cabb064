"""Where results go: a line on the screen and in a file as each comes, and a table at the end."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One figure.

    Attributes:
        part: which part found it.
        name: what was measured.
        value: number or word.
        unit: of the number.
        expected: what it should be and why, in words.
        holds: whether it is as it has to be; None where nothing was promised.
        more: other figures of the same measurement.
        at: seconds since the start.
    """

    part: str
    name: str
    value: Any
    unit: str = ""
    expected: str = ""
    holds: bool | None = None
    more: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0

    def line(self) -> str:
        """As it is shown while it runs."""
        mark = {True: "ok ", False: "BAD", None: "   "}[self.holds]
        more = "".join(f", {name} {shown(value)}" for name, value in self.more.items())
        expected = f"   (expected: {self.expected})" if self.expected else ""
        return f"[{self.at:6.1f} s] {mark} {self.part}: {self.name} {shown(self.value)} {self.unit}{more}{expected}"

    def row(self) -> str:
        """As it stands in the table."""
        more = ", ".join(f"{name} {shown(value)}" for name, value in self.more.items())
        mark = {True: "", False: " **not as promised**", None: ""}[self.holds]
        return f"| {self.part} | {self.name} | {shown(self.value)} {self.unit}{mark} | {more} | {self.expected} |"


class Report:
    """Results of one run, kept as they come in ``<name>.jsonl`` and at the end in ``<name>.md``.

    Args:
        folder: where the files go.
        name: of the files, without ending; a number behind it where there are some already.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tails = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
        pairs = ((folder / f"{name}{tail}.jsonl", folder / f"{name}{tail}.md") for tail in tails)
        self.lines, self.page = next(pair for pair in pairs if not any(file.exists() for file in pair))
        self.results: list[Result] = []
        self.began = time.monotonic()

    def add(self, part: str, name: str, value: Any, unit: str = "", **about: Any) -> None:
        """Keep and show one result; ``about`` are ``expected``, ``holds`` and further figures."""
        known = {key: about.pop(key) for key in ("expected", "holds") if key in about}
        at = round(time.monotonic() - self.began, 1)
        result = Result(part=part, name=name, value=value, unit=unit, more=about, at=at, **known)
        self.results.append(result)
        with self.lines.open("a") as file:
            file.write(json.dumps(asdict(result), default=str) + "\n")
        print(result.line(), flush=True)

    def close(self, title: str) -> None:
        """Write the table."""
        head = [title, "", "| part | what | figure | also | expected |", "|---|---|---|---|---|"]
        self.page.write_text("\n".join([*head, *(result.row() for result in self.results)]) + "\n")

    @property
    def failed(self) -> list[Result]:
        """Results that are not as they have to be."""
        return [result for result in self.results if result.holds is False]


def shown(value: Any) -> str:
    """A number at four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
