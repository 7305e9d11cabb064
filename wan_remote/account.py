"""What an account can be asked for without paying, from requests to billings. Plain data that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from .clock import moment_text
from .command import program
from .errors import BadResponse, InvalidRequest, JobGone, ModelUnavailable
from .job import Job, asked_id, safe_id
from .journal import Journal
from .keys import Keys
from .providers.base import QUESTIONS
from .redact import redact, unsigned
from .retry import ask
from .secret import Secret
from .session import Folders, Session, open_session
from .watch import Watch

WHAT = ("requests", *QUESTIONS)


async def account(
    provider: str,
    what: str,
    *,
    keys: Keys | None = None,
    watch: Watch | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Any:
    """Ask a cloud about the account.

    Args:
        provider: name of a cloud.
        what: one of :data:`WHAT`.
        keys: where API keys are.
        watch: says whether to stop.
        inputs: what a price is asked for.

    Raises:
        InvalidRequest: something this cloud can't be asked.
        RemoteError: the cloud refuses, or can't be reached.
    """
    session = _session(provider, keys, watch)
    cloud, clean = session.provider, partial(_clean, secret=session.secret)
    if what == "requests":
        newest = cloud.listing()
        assert newest is not None
        reply = await ask(session, newest)
        rows = cloud.listed(reply.data)
        if rows is None:
            raise BadResponse(f"{cloud.label} gave a list of a form that is not known here; try again later")
        return [_shown(cloud.job(row), session.secret) for row in rows if safe_id(cloud.id_of(row))]
    if what not in WHAT:
        raise InvalidRequest(f"what={what!r} is not known; use {', '.join(WHAT)}")
    questions = cloud.questions(inputs or {})
    if what not in questions:
        *some, last = ("requests", *questions)
        raise InvalidRequest(f"{cloud.label} can't be asked for {what}; use {', '.join(some)} or {last}")
    question = questions[what]
    return clean(question.read((await ask(session, question.call)).data))


async def status(
    provider: str,
    request_id: str,
    *,
    keys: Keys | None = None,
    watch: Watch | None = None,
    state: Path | None = None,
) -> dict[str, Any]:
    """How one request stands.

    Args:
        provider: name of a cloud.
        request_id: the cloud's name for it.
        keys: where API keys are.
        watch: says whether to stop.
        state: folder of the journal, which knows whose a request is; None to ask the cloud whatever it is.

    Raises:
        InvalidRequest: an id that can't be one, or is the other cloud's.
        JobGone: the cloud does not know it.
        RemoteError: the cloud refuses, or can't be reached.
    """
    wanted = asked_id(request_id)
    if state is not None:
        Journal(folder=state / "jobs").entries_of(provider, wanted)
    session = _session(provider, keys, watch)
    try:
        reply = await ask(session, session.provider.status(wanted))
    except ModelUnavailable:  # 404: of a request it says nothing about the model
        raise JobGone(
            f"{session.provider.label} does not know the request {wanted} with this key; `{program()} "
            f"{provider} list` shows those it knows"
        ) from None
    return _shown(session.provider.job(reply.data), session.secret)


def _session(provider: str, keys: Keys | None, watch: Watch | None) -> Session:
    nowhere = Folders(state=Path(), output=Path())  # nothing is written
    return open_session(provider, folders=nowhere, keys=keys, watch=watch)


def _shown(job: Job, secret: Secret) -> dict[str, Any]:
    """A job without addresses that may be signed."""
    hidden = ("url", "thumbnail", "known", "withheld")
    row = {name: value for name, value in asdict(job).items() if name not in hidden and value not in (None, "")}
    row |= {name: moment_text(row[name]) for name in ("created", "queued", "updated") if name in row}
    row["status"] = job.status.value
    row["message"] = job.message
    row["has_video"], row["has_thumbnail"] = bool(job.url), bool(job.thumbnail)
    if still := unsigned(job.thumbnail):
        row["thumbnail"] = still
    shown: dict[str, Any] = _clean(row, secret)
    return shown


def _clean(data: Any, secret: Secret) -> Any:
    """The same data with every text in it fit to show."""
    if isinstance(data, dict):
        return {redact(name, (secret.reveal(),)): _clean(value, secret) for name, value in data.items()}
    if isinstance(data, list):
        return [_clean(value, secret) for value in data]
    if isinstance(data, float) and not math.isfinite(data):  # no JSON
        return None
    return redact(data, (secret.reveal(),)) if isinstance(data, str) else data
