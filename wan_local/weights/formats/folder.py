"""What all folder layouts share: weights cut into shards, and a ``config.json`` beside them."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import UnreadableWeights
from ...words import counted
from ..source import Entry, listed, reason, shown
from . import safetensors_file

INDEX = ".safetensors.index.json"


def files(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by name, in order, without the ``._`` companions that macOS writes beside each."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("._"))


def read_json(path: Path) -> dict[str, object]:
    """A JSON object, or an empty dict if there is no such file.

    Raises:
        UnreadableWeights: the file is there but not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableWeights(f"{path} can't be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableWeights(f"{path} is not readable JSON ({reason(error)}); download it again") from error
    if not isinstance(value, dict):
        raise UnreadableWeights(f"{path} is not a JSON object; download it again")
    return value


def read_shards(folder: Path) -> dict[str, Entry]:
    """Entries of all safetensors files of a folder, in order; empty if there are none.

    Raises:
        UnreadableWeights: a shard that the index names is missing, or a name stands in two files.
    """
    shards = _indexed(folder) or files(folder, "*.safetensors")
    entries: dict[str, Entry] = {}
    for shard in shards:
        found, _ = safetensors_file.read_header(shard)
        if twice := sorted(entries.keys() & found.keys()):
            raise UnreadableWeights(
                f"{folder} holds several models: {listed([path.name for path in shards])} "
                f"all have {shown(twice[0])}; name the file that you mean"
            )
        entries |= found
    return entries


def _indexed(folder: Path) -> list[Path]:
    indexes = files(folder, "*" + INDEX)
    if not indexes:
        return []
    if len(indexes) > 1:
        found = ", ".join(index.name for index in indexes)
        raise UnreadableWeights(f"{folder} has several weight sets ({found}); keep one")
    table = read_json(indexes[0]).get("weight_map")
    if not isinstance(table, dict):
        raise UnreadableWeights(f"{indexes[0]} has no weight_map; download it again")
    names = sorted({str(name) for name in table.values()})
    if outside := [name for name in names if Path(name).name != name or "\0" in name or "\\" in name]:
        raise UnreadableWeights(
            f"{indexes[0]} names {outside[0]!r:.100}, which is not a file beside it; download it again"
        )
    if absent := [name for name in names if not _is_file(folder / name)]:
        raise UnreadableWeights(
            f"{folder} lacks {len(absent)} of {counted(len(names), 'shard')} ({listed(absent)}); download them"
        )
    return [folder / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name no file can have, such as one of 5,000 letters
        return False
