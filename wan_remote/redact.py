"""Text from outside made fit to show: one line, not too long, nothing secret in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 500  # characters
HIDDEN = "***"
# A digit and some length set a key apart from an ordinary word behind one of these.
BEARER = re.compile(r"(?i)\b(bearer|key|basic)\s+(?=[A-Za-z+/=._~-]*[0-9])[A-Za-z0-9+/=._~-]{16,}")
QUERY = re.compile(r"(https?://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", re.IGNORECASE)
USER = re.compile(r"(?i)\b(https?://)[^\s/@\"'<>]+@")
PLAIN = re.compile(r"https://[A-Za-z0-9.:-]+/[A-Za-z0-9._~/%+,:=&-]*")  # nothing that a page takes for markup
DATA = re.compile(r"[A-Za-z0-9+/=_-]{120,}")  # images in base64; no word is that long


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """``text`` in one printable line of at most 500 characters, without keys, address queries and base64."""
    shown = str(text)
    for secret in secrets:  # before anything is cut: a part of a key is not recognised any more
        if secret:
            shown = shown.replace(secret, HIDDEN)
    shown = shown[: 40 * LONGEST]
    shown = QUERY.sub(r"\1", USER.sub(r"\1", shown))
    shown = DATA.sub("...", BEARER.sub(rf"\1 {HIDDEN}", shown))
    shown = "".join(character if character.isprintable() else " " for character in shown)
    shown = " ".join(shown.split())
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 3].rstrip() + "..."


def unsigned(address: str) -> str:
    """An address that may be shown and kept: one that whoever reads it can open, and that gives away nothing. Empty for
    any other."""
    return address if len(address) <= LONGEST and PLAIN.fullmatch(address) else ""
