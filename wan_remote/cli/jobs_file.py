"""Many clips from one file or folder: read whole, checked whole, and only then begun."""

from __future__ import annotations

import argparse
import copy
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from ..providers import PROVIDERS
from ..request import RANDOM_SEED, Request
from .arguments import image
from .options import aliases

APART = ("provider", "command", "jobs", "takes", "state", "output", "wait")  # options that are of no single clip
SWITCHES = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}
PAIRED = re.compile(r"(?P<name>.+)[_-](?P<which>first|last)", re.IGNORECASE)
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
NAME = re.compile(r"[^\x00-\x1f\"*/:<>?\\|]{1,100}")  # what a file may be called on every system
MOST_TOLD = 20  # mistakes in one message
NO_COLUMN = "(more than the header has)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """One clip that is asked for.

    Attributes:
        where: it stands, such as "line 3"; empty for the one of the command line.
        name: of its file; empty for that which the cloud's id gives.
        given: its options.
    """

    where: str
    name: str
    given: argparse.Namespace


def wishes(given: argparse.Namespace, make: Callable[[argparse.Namespace], Request]) -> list[Wish]:
    """All that is asked for, a clip each, every one of them checked with its images.

    Args:
        given: the command line, which holds for whatever a line leaves out.
        make: a request of such options.

    Raises:
        InvalidRequest: names every line and column that can't be used.
    """
    mistakes: list[str] = []
    rows = [Wish(where="", name="", given=given)] if given.jobs is None else list(_rows(given, mistakes))
    if not rows and not mistakes:
        raise InvalidRequest(f"{given.jobs} asks for nothing; nothing was sent")
    for row in rows:
        mistakes += _mistakes(row, make)
    takes = [_take(row, number) for row in rows for number in range(given.takes)]
    seen: dict[str, str] = {}
    for row in takes:
        before = seen.setdefault(row.name.lower(), row.where) if row.name else row.where
        if before != row.where:
            mistakes.append(f"{row.where}, name: {row.name!r} is that of {before} too")
    if mistakes and given.jobs is None:
        raise InvalidRequest(f"{mistakes[0]}; nothing was sent")
    if mistakes:
        more = [f"and {len(mistakes) - MOST_TOLD} more"] if len(mistakes) > MOST_TOLD else []
        lines = [f"{given.jobs} can't be used as it is, and nothing was sent:", *mistakes[:MOST_TOLD], *more]
        raise InvalidRequest("\n".join(lines))
    return takes


def _take(row: Wish, number: int) -> Wish:
    given = copy.copy(row.given)
    given.take += number
    name = f"{row.name}_take{given.take}" if row.name and given.take != 1 else row.name
    return Wish(where=row.where, name=name, given=given)


def _mistakes(row: Wish, make: Callable[[argparse.Namespace], Request]) -> Iterator[str]:
    last = copy.copy(row.given)
    last.take += last.takes - 1
    place = f"{row.where}, seed: " if row.where else ""
    if last.takes > 1 and last.seed != RANDOM_SEED:
        yield (
            f"{place}{last.takes} takes of seed={last.seed} would be the same clip paid {last.takes} times; leave the "
            f"seed at {RANDOM_SEED}, which draws another for each take"
        )
    for given in (row.given, last) if last.takes > 1 else (row.given,):
        try:
            make(given)
        except InvalidRequest as error:
            said = str(error)
            field = re.split(r"[= ]", said, maxsplit=1)[0]
            column = aliases(PROVIDERS[given.provider]).get(field, field)
            yield f"{row.where}, {column}: {said}" if row.where else said
            return


def _rows(given: argparse.Namespace, mistakes: list[str]) -> Iterator[Wish]:
    if given.jobs.is_dir():
        return _of_folder(given, mistakes)
    return _of_table(given, mistakes)


# -- a folder ---------------------------------------------------------------------------------------------------------


def _of_folder(given: argparse.Namespace, mistakes: list[str]) -> Iterator[Wish]:
    pairs: dict[str, dict[str, Path]] = {}
    try:
        paths = sorted(given.jobs.iterdir())
    except OSError as error:
        mistakes.append(f"{given.jobs.name}: can't be read ({error.strerror})")
        return
    for path in paths:
        if path.suffix.lower() not in IMAGES or path.name.startswith("."):
            continue
        found = PAIRED.fullmatch(path.stem)
        if found is None:
            mistakes.append(f"{path.name}: ends in neither _first nor _last; rename it, or put it elsewhere")
            continue
        pair, which = pairs.setdefault(found["name"], {}), found["which"].lower()
        if which in pair:
            mistakes.append(f"{path.name}: {pair[which].name} is a {which} image of the same name")
        pair[which] = path
    for name, pair in pairs.items():
        missing = [which for which in ("first", "last") if which not in pair]
        if missing:
            other = next(iter(pair.values())).name
            mistakes.append(f"{name}, {missing[0]}: there is no {name}_{missing[0]} beside {other}")
            continue
        row = copy.copy(given)
        row.first, row.last = pair["first"], pair["last"]
        words = given.jobs / f"{name}.txt"
        if words.exists():
            text = _text(words, mistakes)
            row.prompt = " ".join(text.split()) or row.prompt
        yield Wish(where=name, name=name, given=row)


# -- a table ----------------------------------------------------------------------------------------------------------


def _of_table(given: argparse.Namespace, mistakes: list[str]) -> Iterator[Wish]:
    text = _text(given.jobs, mistakes)
    if not text.strip():
        return
    separator = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey=NO_COLUMN, strict=True)
    known = {name for name in vars(given) if name not in APART} | {"name"}
    names = aliases(PROVIDERS[given.provider])
    try:
        columns = {column: _option(column, names) for column in table.fieldnames or ()}
        for column, option in columns.items():
            if option not in known:
                mistakes.append(f"line 1, {column or '(empty)'}: no such column; use {', '.join(sorted(known))}")
        options = [_option(column, names) for column in table.fieldnames or ()]
        mistakes += [f"line 1, {option}: stands there twice" for option in known if options.count(option) > 1]
        for cells in () if mistakes else table:
            where = f"line {table.line_num}"
            if row := _row(given, where, cells, columns, mistakes):
                yield row
    except csv.Error as error:
        mistakes.append(f"line {max(1, table.line_num)}: it is no CSV ({error})")


def _option(column: str, names: Mapping[str, str]) -> str:
    plain = column.strip().lower().lstrip("-").replace("-", "_").replace(" ", "_")
    return names.get(plain, plain)


def _row(
    given: argparse.Namespace, where: str, cells: dict[str, Any], columns: dict[str, str], mistakes: list[str]
) -> Wish | None:
    if not any(cells.values()):
        return None
    before, row, name = len(mistakes), copy.copy(given), ""
    if NO_COLUMN in cells:
        mistakes.append(f"{where}: has more cells than the header; quote a text that has the separator in it")
    for column, option in columns.items():
        cell = (cells[column] or "").strip()
        if not cell:
            continue
        if option == "name":
            name = cell
            if not NAME.fullmatch(cell) or cell.startswith(".") or cell.endswith("."):
                mistakes.append(f"{where}, {column}: {cell!r} can't be the name of a file")
            continue
        try:
            setattr(row, option, _value(cell, getattr(given, option), option, given.jobs.parent))
        except ValueError as error:
            mistakes.append(f"{where}, {column}: {error}")
    for option in ("first", "last"):
        if getattr(row, option) is None:
            mistakes.append(f"{where}, {option}: no image is named")
    return Wish(where=where, name=name, given=row) if len(mistakes) == before else None


def _value(cell: str, default: Any, option: str, beside: Path) -> Any:
    """A cell as its option has it.

    Raises:
        ValueError: it is none; says what is wanted.
    """
    if option in ("first", "last"):
        found = image(cell)
        return beside / found if isinstance(found, Path) else found
    if isinstance(default, bool):
        if cell.lower() not in SWITCHES:
            raise ValueError(f"{cell!r} is no switch; use true or false")
        return SWITCHES[cell.lower()]
    if isinstance(default, int | float):
        kind, what = (int, "whole number") if isinstance(default, int) else (float, "number")
        try:
            return kind(cell)
        except ValueError:
            pass
        raise ValueError(f"{cell[:40]!r} is no {what}")
    return cell


def _text(path: Path, mistakes: list[str]) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        mistakes.append(f"{path.name}: is not UTF-8; save it as such (Excel: CSV UTF-8)")
    except OSError as error:
        mistakes.append(f"{path.name}: can't be read ({error.strerror})")
    return ""
