"""A cloud's list of requests, read as far as it matters, and whether that was all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BadResponse
from .job import Job
from .providers import Provider
from .providers.base import OK
from .retry import once
from .session import Session
from .transport import Lost

MOST_PAGES = 50
SHORTEST_PAGE = 10  # rows; a list without pages that has fewer is not cut off


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A cloud's list back to some moment.

    Attributes:
        jobs: the rows that were understood, some perhaps without a time.
        empty: whether it has no row at all.
        whole: whether every job since that moment is surely among them. An empty list never says so: a filter that the
            cloud does not know, or another organisation, looks the same.
        ordered: whether every row was understood and they stand newest first: what is cut off is older than all.
    """

    jobs: tuple[Job, ...]
    empty: bool = False
    whole: bool
    ordered: bool = False


async def read_list(session: Session, since: float) -> Listing | None:
    """The list, page by page, back to ``since`` in seconds since 1970 of the cloud's clock; None if it can't be had."""
    jobs: dict[str, Job] = {}
    unread = more = False
    for page in range(1, MOST_PAGES + 1):
        call = session.provider.listing(page)
        if call is None:  # there are no pages: a short one that promises no others is all there is
            found = tuple(jobs.values())
            whole = 0 < len(found) < SHORTEST_PAGE and not (unread or more)
            return Listing(jobs=found, whole=whole, ordered=not unread and _newest_first(found))
        reply = await once(session, call)
        if isinstance(reply, Lost) or reply.status != OK:
            return None
        rows = session.provider.listed(reply.data)
        if rows is None:
            return None
        read = [_read(session.provider, row) for row in rows]
        fresh = [job for job in read if job is not None and job.id not in jobs]
        unread |= None in read or any(job.created is None for job in fresh)
        more = session.provider.more(reply.data)
        jobs |= {job.id: job for job in fresh}
        end_of_pages = not rows and page > 1
        if end_of_pages or (not unread and _reaches(list(jobs.values()), since, more)):
            return Listing(jobs=tuple(jobs.values()), whole=not unread)
        if not fresh:  # it is empty, or says the same on every page
            break
    return Listing(jobs=tuple(jobs.values()), empty=not jobs and not unread, whole=False)


def _reaches(jobs: Sequence[Job], since: float, more: bool) -> bool:
    """Whether jobs, all with a time, stand newest first and go back to before ``since``. One row has no order."""
    times = {job.created or 0.0 for job in jobs}
    return bool(times) and _newest_first(jobs) and (len(times) > 1 or not more) and min(times) < since


def _newest_first(jobs: Sequence[Job]) -> bool:
    times = [job.created or 0.0 for job in jobs]
    return times == sorted(times, reverse=True)


def _read(provider: Provider, row: object) -> Job | None:
    try:
        return provider.job(row)
    except BadResponse:
        return None
