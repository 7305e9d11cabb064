"""What all folder layouts share: weights cut into shards, and a ``config.json`` beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UnreadableWeights
from ..source import Entry
from . import safetensors_file

INDEX = ".safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty dict if there is no such file.

    Raises:
        UnreadableWeights: the file is there but not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableWeights(f"{path} is not readable JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise UnreadableWeights(f"{path} is not a JSON object; download it again")
    return value


def read_shards(folder: Path) -> dict[str, Entry]:
    """Entries of all safetensors files of a folder, in order; empty if there are none.

    Raises:
        UnreadableWeights: a shard that the index names is missing, or a name stands in two files.
    """
    shards = _indexed(folder) or sorted(folder.glob("*.safetensors"))
    entries: dict[str, Entry] = {}
    for shard in shards:
        found, _ = safetensors_file.read_header(shard)
        if twice := sorted(entries.keys() & found.keys()):
            raise UnreadableWeights(
                f"{shard} repeats {twice[0]} from another file of {folder}; keep one set of weights there"
            )
        entries |= found
    return entries


def _indexed(folder: Path) -> list[Path]:
    indexes = sorted(folder.glob("*" + INDEX))
    if not indexes:
        return []
    if len(indexes) > 1:
        found = ", ".join(index.name for index in indexes)
        raise UnreadableWeights(f"{folder} has several weight sets ({found}); keep one")
    table = read_json(indexes[0]).get("weight_map")
    if not isinstance(table, dict):
        raise UnreadableWeights(f"{indexes[0]} has no weight_map; download it again")
    names = sorted({str(name) for name in table.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise UnreadableWeights(f"{indexes[0]} names {outside[0]!r}, which is not a file beside it; download it again")
    if absent := [name for name in names if not (folder / name).is_file()]:
        shown = ", ".join(absent[:3])
        raise UnreadableWeights(f"{folder} lacks {len(absent)} of {len(names)} shards ({shown}); download them")
    return [folder / name for name in names]
