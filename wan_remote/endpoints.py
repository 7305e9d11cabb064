"""Where the clouds are. Only the environment can say otherwise: a graph must not be able to send a key elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from .errors import InvalidRequest

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def base_url(variable: str, default: str, environ: Mapping[str, str]) -> str:
    """The address that a cloud's paths hang below, without a slash at its end.

    Args:
        variable: of the environment, that may say otherwise.
        default: where the cloud is.
        environ: the environment.

    Raises:
        InvalidRequest: an address from the environment that is not https (http is for this machine only).
    """
    address = (environ.get(variable) or default).strip().rstrip("/")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    plain = bool(host) and not (parts.username or parts.password or parts.query or parts.fragment)
    if plain and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)):
        return address
    raise InvalidRequest(f"{variable} is not an https address without user, query and fragment; unset it or correct it")


def is_loopback(address: str) -> bool:
    """Whether an address names this very machine, literally: a name that only resolves to it does not count."""
    return urlsplit(address).hostname in LOOPBACK
