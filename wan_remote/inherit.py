"""Jobs of the same inputs that were paid with another key, organisation or address: a key is replaced, and the job
that was under way belongs to the same account still."""

from __future__ import annotations

from dataclasses import replace

from .errors import Forbidden, ModelUnavailable, Rejected
from .journal import DONE, INTENT, MISSING, SUBMITTED, Entry, same_inputs
from .providers.base import told_id
from .retry import ask
from .session import Session

FRESH = 86400.0  # seconds for which a submission without an answer is looked for in another scope


async def paid_elsewhere(session: Session, wanted: Entry) -> Entry | None:
    """Take over an open job of the same inputs if the present key may see it.

    Args:
        session: cloud, key, journal.
        wanted: what would be submitted otherwise.

    Returns:
        the job under ``wanted``'s fingerprint, on disk; or an intent that has to be looked for; or None.

    Raises:
        RemoteError: it can't be told; nothing was sent.
    """
    for other in session.journal.entries():
        if not same_inputs(other, wanted) or other.scope == wanted.scope:
            continue
        if other.state in (SUBMITTED, MISSING, DONE) and other.id and await _visible(session, other):
            adopted = session.journal.write(
                replace(other, fingerprint=wanted.fingerprint, scope=wanted.scope, state=SUBMITTED)
            )
            session.journal.archive(other)
            return adopted
        if other.state == INTENT and other.submissions and session.clock.time() - other.intent_at < FRESH:
            return replace(other, fingerprint=wanted.fingerprint, scope=wanted.scope)
    return None


async def _visible(session: Session, entry: Entry) -> bool:
    """Whether the cloud shows a job to the present key."""
    label = session.provider.label
    session.watch.stage(f"asking {label} for {entry.id}, which these inputs were sent as with another key")
    try:
        reply = await ask(session, session.provider.status(entry.id))
    except (ModelUnavailable, Forbidden, Rejected):
        return False
    return str(told_id(reply.data)) == entry.id
