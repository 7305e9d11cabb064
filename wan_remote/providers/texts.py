"""What a cloud says in words, found wherever it says it."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from ..transport import Answer
from .reading import a_dict, a_list, a_text

STATUS_WORD = re.compile(r"[A-Za-z_-]{1,24}")  # no digits: what has some may be a piece of something secret
LONGEST_STATUS = 40  # characters


def reason(data: Any) -> str:
    """Why something was refused or failed, not cleaned; empty if no field says it."""
    row = a_dict(data)
    error = row.get("error")
    inner = a_dict(error)
    details = [
        f"{'.'.join(map(str, a_list(a_dict(item).get('loc'))))} {a_text(a_dict(item).get('msg'))}".strip()
        for item in a_list(row.get("detail"))
    ]
    for text in (error, inner.get("details"), inner.get("message"), row.get("message"), row.get("detail")):
        if isinstance(text, str) and text.strip():
            return text
    return "; ".join(detail for detail in details if detail)


def whole_text(answer: Answer) -> str:
    """The body of an answer that is no JSON. Not cut: a cut through a key leaves what can't be recognised as one."""
    return "" if answer.body is None else answer.body.decode("utf-8", "replace")


def status_word(text: str) -> str:
    """A status as it may be shown and stored, also one that is not known: its leading words."""
    return " ".join(takewhile(STATUS_WORD.fullmatch, text.split()))[:LONGEST_STATUS]
