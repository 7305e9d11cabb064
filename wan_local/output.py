"""Files this library leaves behind: whole or not at all.

A result is written to a temporary file in the folder of its target and moved over it in one step, so that a good
file from an earlier run is never left half overwritten by a full disk, a stop or a crash.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import OutputError


def check_writable(path: str | Path, need_bytes: int = 0) -> Path:
    """Make sure that a file can be put at ``path``, before the long work that makes its content.

    Creates missing parent folders, and a temporary file that is removed again.

    Args:
        need_bytes: about how large the file may get; more than the free space is an error.

    Returns:
        The real target, symbolic links followed.

    Raises:
        OutputError: no permission, no space, or a folder or device in its place.
    """
    target = Path(os.path.realpath(path))
    with _as_output_error(path):
        if target.is_dir():
            raise OutputError(f"{path} is a folder; name a file in it")
        if target.exists() and not target.is_file():
            raise OutputError(f"{path} is not a regular file; name another file")
        if target.exists() and not os.access(target, os.W_OK):
            raise OutputError(f"{path} is write-protected; make it writable or name another file")
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < need_bytes:
            raise OutputError(
                f"{path} may need {_megabytes(need_bytes)} and {_megabytes(free)} are free; "
                "make room or name another folder"
            )
        probe = _temporary(target)
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink()
    return target


def check_new_folder(folder: str | Path, need_bytes: int = 0) -> Path:
    """As :func:`check_writable`, for a folder that must be missing or empty.

    An earlier, longer run would leave its last files among those of a new one, and nobody could tell them apart.
    """
    target = Path(os.path.realpath(folder))
    with _as_output_error(folder):
        if target.exists() and not target.is_dir():
            raise OutputError(f"{folder} is a file; name a new folder")
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(f"{folder} is not empty; name a new or an empty folder")
    check_writable(target / "frame", need_bytes)
    return target


def check_apart(files: Mapping[str, str | None], folders: Mapping[str, str | None], *, alone: bool = True) -> None:
    """Make sure that results of one run are not in each other's way, before any is made.

    Args:
        files: what a person calls each, and its path; None is none.
        folders: the same of folders.
        alone: whether a folder may hold none of the files.

    Raises:
        OutputError: which two are.
    """
    given = {name: path for name, path in (*files.items(), *folders.items()) if path}
    places = {name: Path(os.path.normcase(os.path.realpath(path))) for name, path in given.items()}
    for one, other in itertools.permutations(given, 2):
        both, inside = f"{one} {given[one]} and {other} {given[other]}", places[one] in places[other].parents
        if one in files and (inside or places[one] == places[other]):
            raise OutputError(f"{both} can't both be there; name another place for one of them")
        if one in folders and alone and inside:
            raise OutputError(f"{both} would lie in one folder; name a folder that nothing else is put into")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; move it over ``path`` when the block ends well, else remove it.

    Raises:
        OutputError: the system refused the file or the move; what stood at ``path`` is untouched.
    """
    target = check_writable(path)
    temporary = _temporary(target)
    try:
        with _as_output_error(path):
            yield temporary
            _flush_to_disk(temporary)
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):  # it would hide what went wrong before
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_output_error(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise OutputError(f"can't write {path}: {reason}; name another place or free this one") from error


def _temporary(target: Path) -> Path:
    """A name beside the target: a move within one folder stays on one disk, which is what makes it one step."""
    # Systems bound the bytes of a name, not its letters.
    stem = target.stem.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return target.parent / f".{stem}.{secrets.token_hex(6)}{target.suffix}"


def _flush_to_disk(path: Path) -> None:
    with open(path, "r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
