"""Where the clouds are. Only the environment can say otherwise: a graph must not be able to send a key elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InvalidRequest
from .transport import is_loopback, web_parts


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
    parts = web_parts(address)
    if parts is not None and not (parts.username or parts.password or parts.query or parts.fragment):
        if parts.scheme == "https" or is_loopback(address):
            return address
    raise InvalidRequest(f"{variable} is not an https address without user, query and fragment; unset it or correct it")
