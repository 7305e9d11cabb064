"""The faults and their outcomes: filled by the tests, printed at the end, written where ``REMOTE_FAULT_TABLE`` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STAGES = {
    "before": "Before the submission",
    "submit": "The submission",
    "poll": "While the job runs",
    "download": "The file",
    "control": "Stops, restarts, many at once",
}
HEAD = """# Faults and what becomes of them

Written by `REMOTE_FAULT_TABLE=docs/remote_faults.md python -m pytest tests/wan_remote`; every row is a test that ran
against the stand-in of `tests/wan_remote/stand_in/`. *Submissions* are those the cloud saw, and in brackets those that
made a job, which is what costs money. *End* is a result, or the class of the error.
"""


@dataclass(frozen=True)
class Row:
    stage: str
    name: str
    posts: int
    accepted: int
    end: str
    journal: str


def text(rows: list[Row]) -> str:
    lines = [HEAD]
    for stage, title in STAGES.items():
        found = sorted({row for row in rows if row.stage == stage}, key=lambda row: row.name)
        if not found:
            continue
        lines += [f"\n## {title}\n", "| fault | submissions | end | journal |", "|---|---|---|---|"]
        for row in found:
            name = row.name.replace("|", "\\|")
            lines.append(f"| {name} | {row.posts} ({row.accepted}) | {row.end} | {row.journal or '-'} |")
    return "\n".join(lines) + "\n"


def write(rows: list[Row], path: Path) -> None:
    path.write_text(text(rows), encoding="utf-8")
