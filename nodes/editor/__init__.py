"""What the pack's own pages in the editor ask of the server, a file a page; docs/editor.md says what each may get.

Nothing here gives a key away: :mod:`.keys` says where one is set and takes a new one, and texts of jobs are cleaned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import host
from . import estimate, examples, jobs, keys, prices


def register(nodes: Sequence[type[Any]]) -> None:
    """Have the host answer all of them. ``nodes`` are those of the pack, of which some are clouds."""
    host.answer("get", "/jobs", jobs.listed)
    host.answer("get", "/jobs/picture", jobs.picture)
    host.answer("get", "/jobs/graph", jobs.graph)
    host.answer("post", "/jobs/collect", jobs.collect)
    host.answer("get", "/keys", keys.states)
    host.answer("post", "/keys", keys.store)
    host.answer("get", "/prices", lambda asked: prices.lists(nodes))
    host.answer("get", "/estimate", estimate.estimate)
    host.answer("post", "/examples", lambda asked: examples.bring())
