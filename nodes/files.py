"""Weight files as the loaders list them: what ComfyUI has in a model folder, then the bundled model."""

from __future__ import annotations

from pathlib import Path

from ..wan_local.errors import InputError
from . import host


def names(kind: str) -> list[str]:
    """What a loader of ``kind`` (a folder below ``models``) offers."""
    bundled = [host.BUNDLED] if host.BUNDLED in host.pipeline_folders() else []
    return [*host.model_files(kind), *bundled]


def path(kind: str, field: str, name: str) -> Path:
    """Where ``name`` is.

    Raises:
        InputError: not one of :func:`names`.
    """
    found = host.pipeline_folders().get(name) if name == host.BUNDLED else host.model_path(kind, name)
    if found is None:
        raise InputError(f"{field}={name!r} is not in models/{kind}; put it there, or pick one that is")
    return found


def stamp(kind: str, name: str) -> tuple[str, int] | None:
    """What changes when the file is replaced by another of the same name."""
    found = None if name == host.BUNDLED else host.model_path(kind, name)
    return None if found is None else (str(found), found.stat().st_mtime_ns)
