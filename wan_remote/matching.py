"""Whether a job in a cloud's list is the one that was sent. What can't be known is *perhaps*, never *no*.

Clouds are known to repeat when a job was made, and some also prompt and seed, if they feel like it: stripped, cut,
written out, or with -1 in place of the seed. The label of the model is the cloud's own affair and not compared.
"""

from __future__ import annotations

import html
import unicodedata
from enum import IntEnum

from .job import Job
from .journal import Entry
from .session import Session
from .states import State

BEFORE, AFTER = 900.0, 86400.0  # seconds around the intent in which its job may be, by the cloud's clock
SKEW, SOON = 10.0, 180.0  # seconds around it in which its job is to be expected
AT_REFUSAL = 60.0  # seconds around a submission that was refused in which a job would be its own all the same
UNSURE = 86400.0  # what BEFORE is where it is not known how far the cloud's clock was from ours
DAMAGED = 7 * 86400.0  # the same for an entry whose time is lost
CUT = 40  # characters that two prompts must share if one is the beginning of the other
NO_SEED = (-1, 0)  # what a cloud may write that does not repeat the seed


class Fit(IntEnum):
    """How well a job fits an entry."""

    NO = 0  # surely another's
    UNLIKELY = 1  # made some time before or after
    PERHAPS = 2
    LIKELY = 3  # made at the right moment, and nothing that the cloud repeats speaks against it
    ALIKE = 4  # of the same prompt and seed, made some time before or after
    SURE = 5  # of the same prompt and seed, made at the right moment


def fit(session: Session, entry: Entry, job: Job) -> Fit:
    """Compare what the cloud repeats of a job with what was sent."""
    prompt, seed = _same_prompt(entry, job), _same_seed(entry, job)
    if prompt is False and seed is False:
        return Fit.NO
    if job.created is None:
        return Fit.PERHAPS
    first, last = window(session, entry, narrow=not (prompt and seed))  # what is alike may be late
    if not first <= job.created <= last:
        return Fit.NO
    timed = entry.ahead is not None and not entry.recovered  # else there is no right moment
    soon = timed and -SKEW <= job.created - sent_at(session, entry) <= SOON
    if prompt and seed:
        return Fit.SURE if soon else Fit.ALIKE
    if timed and not soon:
        return Fit.UNLIKELY
    return Fit.LIKELY if soon and False not in (prompt, seed) else Fit.PERHAPS


def window(session: Session, entry: Entry, *, narrow: bool = True) -> tuple[float, float]:
    """Between which moments of the cloud's clock the job of an entry was made; ``narrow`` only near a refusal."""
    sent, known = sent_at(session, entry), entry.ahead is not None
    if narrow and entry.state is State.REJECTED and known:
        refused = sent + max(0.0, entry.ended_at - entry.intent_at)  # a slow line takes minutes to send it
        return sent - AT_REFUSAL, refused + AT_REFUSAL
    before = DAMAGED if entry.recovered else BEFORE if known else UNSURE
    return sent - before, sent + AFTER


def cloud_ahead(session: Session) -> float | None:
    """Seconds that the cloud's clock is before this machine's, if the cloud has said its time."""
    return None if session.api.time is None else session.api.time - session.clock.time()


def sent_at(session: Session, entry: Entry) -> float:
    """When an entry was sent, by the cloud's clock."""
    return entry.intent_at + (entry.ahead if entry.ahead is not None else cloud_ahead(session) or 0.0)


def age(session: Session, entry: Entry) -> float:
    """Seconds since an entry was sent."""
    ahead = cloud_ahead(session)
    return session.clock.time() + (entry.ahead or 0.0 if ahead is None else ahead) - sent_at(session, entry)


def same_inputs(entry: Entry, job: Job) -> bool:
    """Whether a job repeats prompt and seed of an entry."""
    return bool(_same_prompt(entry, job) and _same_seed(entry, job))


def _same_seed(entry: Entry, job: Job) -> bool | None:
    """None where the cloud does not say; also for an entry whose own seed is lost."""
    if job.seed is None or job.seed in NO_SEED or (entry.recovered and job.seed != entry.seed):
        return None
    return job.seed == entry.seed


def _same_prompt(entry: Entry, job: Job) -> bool | None:
    asked, shown = _plain(str(entry.parameters.get("prompt", ""))), _plain(job.prompt or "")
    if not shown:
        return None
    short, long = sorted((asked, shown), key=len)
    if asked == shown or (len(short) >= CUT and long.startswith(short)):
        return True
    return None if entry.parameters.get("prompt_extend") else False  # it was to be written out


def _plain(text: str) -> str:
    """Without what is done to a text on its way: escapes, other forms of the same letters, spaces."""
    return " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
