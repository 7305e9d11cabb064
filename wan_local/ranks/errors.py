"""What goes wrong with ranks: which rank, at what stage, and why."""

from __future__ import annotations

from ..errors import WanError

CAUSE = "Last error:"  # what torch puts NCCL's own words behind, after its file, line and general advice


class RankError(WanError):
    """A rank, or what starts the ranks, failed; the whole group has been ended.

    Attributes:
        rank: the rank to blame; None where no single one is (the cluster could not be joined, versions differ).
        stage: what was being done: ``"starting"``, ``"joining"``, ``"loading"``, what the caller named, ``"closing"``.
        cause: exception text, signal, out of memory, or for how long nothing was heard.
        place: where the rank is: its device, or its machine.
    """

    def __init__(self, cause: str, *, stage: str, rank: int | None = None, place: str = "") -> None:
        who = "the ranks" if rank is None else f"rank {rank}"
        super().__init__(f"{who}{f' ({place})' if place else ''} failed at {stage}: {cause}")
        self.rank = rank
        self.stage = stage
        self.cause = cause
        self.place = place


class Busy(RankError):
    """The GPUs are used by another run; nothing was ended and nothing started."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, stage="waiting")
        self.args = (cause,)  # no rank has failed


def one_line(text: object, limit: int = 300) -> str:
    """``text`` without line breaks, cut to ``limit`` characters: errors are one line. What NCCL names last is kept."""
    joined = " ".join(str(text).split())
    if len(joined) <= limit:
        return joined
    begin, mark, cause = joined.rpartition(CAUSE)
    if not begin:
        return _cut(joined, limit)
    last = _cut(mark + cause, 2 * limit // 3)
    return f"{_cut(begin, limit - len(last) - 1)} {last}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
