"""The faults and their outcomes: filled by the tests, printed at the end, written where ``REMOTE_FAULT_TABLE`` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.wan_remote.fault_ids import FAULTS

STAGES = {
    "before": "Before the submission",
    "submit": "The submission",
    "poll": "While the job runs",
    "download": "The file",
    "control": "Stops, restarts, many at once",
}
HEAD = """# Faults and what becomes of them

Written by `REMOTE_FAULT_TABLE=tests/wan_remote/faults.md python -m pytest tests/wan_remote`; every
row is a test that ran against the stand-in of `stand_in/`. *Submissions* are those the cloud saw,
and in brackets those that made a job, which is what costs money. *End* is a result, or the class of
the error. *Id* is that of the list at the end, for rows that play one of its 75 faults; the others
were found since.
"""


@dataclass(frozen=True)
class Row:
    stage: str
    name: str
    posts: int
    accepted: int
    end: str
    journal: str
    faults: tuple[str, ...] = ()  # ids; see fault_ids.py


def text(rows: list[Row]) -> str:
    lines = [HEAD]
    for stage, title in STAGES.items():
        found = sorted({row for row in rows if row.stage == stage}, key=lambda row: row.name)
        if not found:
            continue
        lines += [f"\n## {title}\n", "| id | fault | submissions | end | journal |", "|---|---|---|---|---|"]
        for row in found:
            name = row.name.replace("|", "\\|")
            cells = [", ".join(row.faults), name, f"{row.posts} ({row.accepted})", row.end, row.journal or "-"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["\n## The ids\n", "| id | fault |", "|---|---|"]
    lines += [f"| {name} | {words} |" for name, (words, _) in FAULTS.items()]
    return "\n".join(lines) + "\n"


def write(rows: list[Row], path: Path) -> None:
    path.write_text(text(rows), encoding="utf-8")
