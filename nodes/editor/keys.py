"""The state of the clouds' keys, and a door for a new one that leads in only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...wan_remote.errors import KeyMissing, RemoteError, StorageError
from ...wan_remote.providers import PROVIDERS
from .. import cloud_run, host

LONGEST = 4096  # characters; no key is so long


def states(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a cloud: whether a key is set and where, or why the one that is set can't be used. Never the key."""
    return [_state(name) for name in PROVIDERS]


def store(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``key`` of ``provider`` into the private file.

    Raises:
        Refused: no such cloud, no key, or one that would not be used since the environment has another.
    """
    name, value = asked.get("provider"), asked.get("key")
    if not isinstance(name, str) or name not in PROVIDERS:
        raise host.Refused(f"there is no such cloud; use {', '.join(PROVIDERS)}")
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
        raise host.Refused(f"that is no key; copy it from {PROVIDERS[name].site}")
    kept = cloud_run.keys()
    if kept.environment_rules(name):
        variable = PROVIDERS[name].key_variable
        raise host.Refused(f"the variable {variable} is set and goes before any key stored here; unset it first", 409)
    try:
        kept.save(name, value)
    except StorageError as error:
        said, status = str(error), 500
    except RemoteError as error:
        said, status = str(error), 400
    else:
        return _state(name)
    raise host.Refused(said, status)


def _state(name: str) -> dict[str, Any]:
    cloud, kept = PROVIDERS[name], cloud_run.keys()
    state, said = "set", ""
    try:
        kept.resolve(name)
    except KeyMissing:
        state = "missing"
    except RemoteError as error:
        state, said = "unusable", str(error)
    return {
        "provider": name,
        "label": cloud.label,
        "site": cloud.site,
        "variable": cloud.key_variable,
        "state": state,
        "by_environment": kept.environment_rules(name),
        "problem": said,
    }
