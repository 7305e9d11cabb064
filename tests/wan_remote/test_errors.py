"""Errors are told apart by their classes."""

from __future__ import annotations

from wan_remote.errors import BadDownload, InvalidRequest, RateLimited, ResultExpired, StorageError, Unreachable


def test_nothing_here_is_an_invalid_request() -> None:
    """The errors above are told apart by their classes; none is the one for wrong inputs."""
    for kind in (BadDownload, ResultExpired, Unreachable, StorageError, RateLimited):
        assert not issubclass(kind, InvalidRequest)
