"""What is known of one job, and the name that its inputs give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..request import FITS
from ..states import State

VERSION = 2  # of the format that is written


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One job.

    Attributes:
        fingerprint: of all inputs, whichever key they are sent with.
        provider, model, scope: cloud, its model, and which account paid (a hash of key, organisation and address).
        parameters: as asked, without images; ``seed`` -1 stays -1 here.
        first, last: hashes of the two images; empty for a job that was collected by its id alone.
        take: which of several clips of otherwise equal inputs.
        seed: the one that was sent.
        price: US dollars, as the cloud quoted it before it was sent.
        state: where it stands; see :mod:`wan_remote.states`.
        id: the cloud's name for it, once known.
        earlier: ids of the same inputs that ended without a video; none of them is the one looked for.
        guessed: whether its id was found in a list or given by hand, and the cloud's words do not say that it is this.
        rivals: fingerprints of other submissions that an id which was guessed could have been of.
        intent_at, submitted_at, ended_at: seconds since 1970, by this machine's clock.
        ahead: seconds that the cloud's clock was before this machine's at the intent, if that is known.
        word: the cloud's last word.
        message: why it failed, or what was said instead of an id.
        note: what is odd about the file.
        seconds: what making it took, 0 if the cloud does not say.
        flagged: whether the cloud marks it as unsafe content; None if it does not say.
        thumbnail: address of a still of it, if anybody may see that one.
        queued_at, updated_at: when the cloud took it and last changed it, by the cloud's clock, if it says.
        file, sha256, size: the result, relative to the output folder.
        output: that folder, absolute, since runs with others share a journal; empty if it was not noted down.
        submissions: how often it may have reached the cloud since the job before it ended.
    """

    v: int = VERSION
    fingerprint: str
    provider: str
    model: str
    scope: str
    parameters: Mapping[str, Any]
    first: str
    last: str
    take: int = 1
    seed: int
    price: float | None = None
    state: State = State.INTENT
    id: str = ""
    earlier: tuple[str, ...] = ()
    guessed: bool = False
    rivals: tuple[str, ...] = ()
    intent_at: float = 0.0
    ahead: float | None = None
    submitted_at: float = 0.0
    ended_at: float = 0.0
    word: str = ""
    message: str = ""
    note: str = ""
    file: str = ""
    output: str = ""
    sha256: str = ""
    size: int = 0
    seconds: float = 0.0
    flagged: bool | None = None
    thumbnail: str = ""
    queued_at: float | None = None
    updated_at: float | None = None
    submissions: int = 0
    recovered: bool = False  # its file was damaged; what it knew is lost

    @property
    def uncollected(self) -> bool:
        """Whether it is paid for, or may be, and its clip was never brought here."""
        sent = self.state is not State.INTENT or self.submissions > 0 or self.recovered
        return self.state.unfinished and sent

    def places(self, output: Path) -> list[Path]:
        """Where the file of a result may lie: below ``output``, or where the run that brought it had its videos."""
        folders = [output, Path(self.output)] if self.output else [output]
        return [folder / self.file for folder in folders] if self.file else []


def same_inputs(one: Entry, two: Entry) -> bool:
    """Whether two jobs were asked for the same, with whichever key."""
    asked = [
        (entry.provider, entry.model, {**entry.parameters, "fit": ""}, entry.first, entry.last, entry.take)
        for entry in (one, two)
    ]
    return asked[0] == asked[1]


def fingerprint(provider: str, model: str, parameters: Mapping[str, Any], first: str, last: str, take: int = 1) -> str:
    """Equal for equal inputs, and for nothing else."""
    return _digest([provider, model, dict(parameters), first, last, take])


def former_names(entry: Entry) -> list[str]:
    """What an entry of these inputs may have been named after before: ``fit`` was one of its parameters, though the
    hashes of the images tell what it did."""
    fits = [replace(entry, parameters={**entry.parameters, "fit": fit}) for fit in FITS]
    names = [fingerprint(e.provider, e.model, e.parameters, e.first, e.last, e.take) for e in fits]
    return names + [former_fingerprint(e, e.scope) for e in (entry, *fits) if entry.take == 1]


def former_fingerprint(entry: Entry, scope: str) -> str:
    """What the entry of such a first take was named after in format 1."""
    return _digest([entry.provider, entry.model, scope, dict(entry.parameters), entry.first, entry.last])


def _digest(inputs: list[Any]) -> str:
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:40]
