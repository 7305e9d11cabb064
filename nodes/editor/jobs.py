"""The jobs of this machine's journal, as the panel shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...wan_remote import fetch
from ...wan_remote.errors import RemoteError
from ...wan_remote.journal import Entry, Jobs, Overview
from ...wan_remote.journal.tidying import GRAPH, THUMBNAIL
from ...wan_remote.providers import PROVIDERS
from ...wan_remote.redact import HIDDEN, redact
from ...wan_remote.states import State
from .. import cloud_run, host
from .collecting import Collecting

MOST = 100  # rows of a page
collecting = Collecting()


def listed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A page of jobs, those that are paid for and were never collected first.

    Args:
        asked: ``start`` and ``count`` of the rows, counted from 0.

    Raises:
        Refused: the journal can't be read.
    """
    start, count = _number(asked, "start", 0), min(_number(asked, "count", MOST), MOST)
    found, secrets = _look(), _secrets()
    return {
        "jobs": [_row(entry, found, secrets) for entry in found.entries[start : start + count]],
        "total": len(found.entries),
        "uncollected": sum(entry.uncollected for entry in found.entries),
        "unreadable": found.unreadable,
    }


def picture(asked: Mapping[str, Any]) -> host.Picture:
    """The small first image of the job ``name``."""
    data = _overview(host.private_folder()).thumbnail(str(asked.get("name", "")))
    if data is None:
        raise host.Refused("no picture of that job is kept", 404)
    return host.Picture(data)


def graph(asked: Mapping[str, Any]) -> Any:
    """The graph that asked for the job ``name``, as the page saves it or as the queue takes it."""
    text = _overview(host.private_folder()).graph(str(asked.get("name", "")))
    if text is None:
        raise host.Refused("no graph of that job is kept", 404)
    for secret in _secrets():
        text = text.replace(json.dumps(secret)[1:-1], HIDDEN)
    try:
        return json.loads(text)
    except ValueError:
        pass
    raise host.Refused("the graph of that job can't be read", 404)


def collect(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the clip of the job ``name`` here, in the background. By its id, so nothing can be paid for.

    Raises:
        Refused: no such job, or one whose id is not known.
    """
    found = _look()
    entry = next((entry for entry in found.entries if entry.fingerprint == asked.get("name")), None)
    if entry is None:
        raise host.Refused("there is no such job any more", 404)
    if not entry.id:
        raise host.Refused("its id is not known; load its graph and queue it, which looks for the job first", 409)
    if (said := cloud_run.key_problem(entry.provider)) is not None:
        raise host.Refused(said, 409)
    collecting.start(
        entry.fingerprint,
        lambda watch: fetch(
            entry.provider, entry.id, folders=cloud_run.folders(), watch=watch, keys=cloud_run.keys()
        ),
    )  # fmt: skip
    return _row(entry, found, _secrets())


@cache
def _overview(private: Path) -> Overview:
    return Overview(private / "jobs")


def _look() -> Jobs:
    try:
        return _overview(host.private_folder()).look()
    except RemoteError as error:
        said = str(error)
    raise host.Refused(said, 500)


def _secrets() -> list[str]:
    """The keys that are set, to be cut out of whatever people wrote them into."""
    found = []
    for name in PROVIDERS:
        try:
            found.append(cloud_run.keys().resolve(name).reveal())
        except RemoteError:
            continue
    return found


def _row(entry: Entry, found: Jobs, secrets: list[str]) -> dict[str, Any]:
    cloud = PROVIDERS.get(entry.provider)  # none of a cloud that this version does not have
    results = host.results_folder()
    here = bool(entry.file) and (results / entry.file).is_file()
    stage, problem = collecting.of(entry.fingerprint)
    listed = None if cloud is None or cloud.prices is None else cloud.prices.of(entry.parameters)
    return {
        "name": entry.fingerprint,
        "provider": entry.provider,
        "label": entry.provider if cloud is None else cloud.label,
        "id": entry.id,
        "state": entry.state.value,
        "uncollected": entry.uncollected,
        "prompt": redact(entry.parameters.get("prompt", ""), secrets),
        "seed": entry.seed if entry.seed >= 0 else None,
        "take": entry.take,
        "at": entry.intent_at,
        "clip": _clip(entry),
        "quoted": entry.price,
        "listed": listed,
        "said": redact(entry.message or entry.note, secrets),
        "file": Path(entry.file).as_posix() if here else "",
        "deleted": entry.state is State.FETCHED and not any(path.is_file() for path in entry.places(results)),
        "collectable": bool(entry.id) and not here and cloud is not None,
        "picture": f"{entry.fingerprint}{THUMBNAIL}" in found.beside,
        "graph": f"{entry.fingerprint}{GRAPH}" in found.beside,
        "stage": stage,
        "problem": redact(problem, secrets),
    }


def _clip(entry: Entry) -> list[int] | None:
    """Width, height and seconds that were asked for; None where that is not known."""
    cloud = PROVIDERS.get(entry.provider)
    if cloud is None or not entry.parameters:
        return None
    try:
        return list(cloud.request.clip_of(entry.parameters))
    except (TypeError, ValueError, AttributeError):
        return None


def _number(asked: Mapping[str, Any], name: str, absent: int) -> int:
    try:
        return max(0, int(asked.get(name, absent)))
    except ValueError:
        pass
    raise host.Refused(f"{name} is no number")
