"""What each command does; every one gives the text to print."""

from __future__ import annotations

import argparse
import getpass
import json
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..account import account, status
from ..collecting import Result, told
from ..errors import Interrupted, InvalidRequest, KeyInvalid, KeyMissing, RemoteError, StorageError
from ..images import fitted
from ..journal import Journal
from ..keys import Keys
from ..many import run_all
from ..providers import PROVIDERS
from ..request import Request, same_again
from ..run import fetch, run
from ..session import Folders
from ..watch import Watch
from .arguments import own_state
from .jobs_file import wishes
from .options import chosen

MOST_PIXELS = 2**28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # those that Pillow decodes by itself


async def generate(given: argparse.Namespace, watch: Watch) -> str | tuple[str, int]:
    if given.jobs is not None or given.takes > 1:
        return await _generate_all(given, watch)
    output, target = _places(given.output)
    request = _request(given)
    _warn(given)
    result = await run(
        request, folders=Folders(state=given.state, output=output), watch=watch, keys=_keys(given),
        wait_seconds=60.0 * given.wait,
    )  # fmt: skip
    return _told(result, target, given.state)


async def _generate_all(given: argparse.Namespace, watch: Watch) -> tuple[str, int]:
    asked = wishes(given, _request)
    _warn(*(wish.given for wish in asked))
    names = [f"{wish.where} take {wish.given.take}".strip() if given.takes > 1 else wish.where for wish in asked]
    outcomes = await run_all(
        given.provider, [partial(_fitted_request, wish.given) for wish in asked], names=names, watch=watch,
        folders=Folders(state=given.state, output=given.output), keys=_keys(given), wait_seconds=60.0 * given.wait,
    )  # fmt: skip
    lines, failed, width = [], 0, max(map(len, names))
    for name, wish, outcome in zip(names, asked, outcomes, strict=True):
        try:
            if isinstance(outcome, RemoteError):
                raise outcome
            target = given.output / f"{wish.name}{outcome.path.suffix}" if wish.name else None
            state, told_of = "done", _one_line(outcome, target, wish.given.state)
        except RemoteError as error:
            failed, state, told_of = failed + 1, "failed", str(error)
        lines.append(f"{name:{width}}  {state:6}  {told_of}")
    end = f"clips that are here: {len(asked) - failed} of {len(asked)}"
    if failed:
        end += f", {failed} failed; the same command again goes on, and what is here is not paid for again"
    return "\n".join([*lines, end]), min(failed, 1)


def _warn(*asked: argparse.Namespace) -> None:
    """Of clips that will be paid for and are no others, the first."""
    text = next(filter(None, (same_again(each.seed, each.take) for each in asked)), "")
    if text:
        print(f"warning: {text}", file=sys.stderr)


def _one_line(result: Result, target: Path | None, state: Path) -> str:
    again = ", picked up and not paid for again" if result.resumed else ""
    path, note = _copied(result, target, state)
    return "; ".join([str(path), f"{result.request_id}{again}", *told(result), *note])


async def collect(given: argparse.Namespace, watch: Watch) -> str:
    output, target = _places(given.output)
    result = await fetch(
        given.provider, given.id, folders=Folders(state=given.state, output=output), watch=watch, keys=_keys(given),
        wait_seconds=60.0 * given.wait,
    )  # fmt: skip
    return _told(result, target, given.state)


async def show_status(given: argparse.Namespace, watch: Watch) -> str:
    return _json(await status(given.provider, given.id, keys=_keys(given), watch=watch, state=given.state))


async def ask_account(given: argparse.Namespace, watch: Watch) -> str:
    what = {"list": "requests"}.get(given.command, given.command)
    cloud = PROVIDERS[given.provider]
    inputs = chosen(given, cloud) if what == "price" and what in cloud.questions({}) else {}
    return _json(await account(given.provider, what, keys=_keys(given), watch=watch, inputs=inputs))


async def jobs(given: argparse.Namespace, watch: Watch) -> str:
    entries = Journal(folder=given.state / "jobs").entries()
    rows = [
        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(entry.intent_at))}  {entry.provider:9}  {entry.state:9}  "
        f"{entry.id or '-':38}  seed {entry.seed}  take {entry.take}  {entry.parameters.get('prompt', '')[:60]}"
        for entry in entries
    ]
    lines = [f"jobs in {given.state / 'jobs'}:", *rows] if rows else [f"no jobs in {given.state / 'jobs'}"]
    others = len(Journal(folder=own_state() / "jobs").entries()) if given.state != own_state() else 0
    if others:
        lines.append(f"and {others} in another journal, shown by --state {own_state()}")
    return "\n".join(lines)


async def keys(given: argparse.Namespace, watch: Watch) -> str:
    """Store a key, or say where keys are set. For ComfyUI the folder is ``user/__wan_flf2v``."""
    found = _keys(given)
    if given.cloud:
        try:
            typed = getpass.getpass(f"key for {given.cloud}: ") if sys.stdin.isatty() else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):  # Windows says the latter of Ctrl-C, without a signal
            raise Interrupted("stopped") from None
        return f"stored in {found.save(given.cloud, typed)}"
    return "\n".join(f"{name}: {_source(found, name)}" for name in PROVIDERS)


COMMANDS: dict[str, Callable[[argparse.Namespace, Watch], Coroutine[Any, Any, str | tuple[str, int]]]] = {
    "generate": generate,
    "fetch": collect,
    "status": show_status,
    "list": ask_account,
    "models": ask_account,
    "model": ask_account,
    "balance": ask_account,
    "price": ask_account,
    "billings": ask_account,
    "jobs": jobs,
    "keys": keys,
}


def _request(given: argparse.Namespace) -> Request:
    cloud = PROVIDERS[given.provider]
    first, last = (_image(name, getattr(given, name)) for name in ("first", "last"))
    return cloud.request(
        first=first, last=last, prompt=given.prompt, seed=given.seed, fit=given.fit, take=given.take,
        **chosen(given, cloud),
    )  # fmt: skip


def _fitted_request(given: argparse.Namespace) -> Request:
    """With images no larger than the clip: many are held at once."""
    request = _request(given)
    small: Any = {
        name: fitted(image, *request.frame_size, request.fit)
        for name in ("first", "last")
        if not isinstance(image := getattr(request, name), str)
    }
    return replace(request, **small)


def _image(name: str, path: Path | str) -> np.ndarray | str:
    """An image file as ``[H, W, 4]`` uint8, rotated as its camera says, opaque where it has no transparency; an address
    as it is."""
    from PIL import ImageOps

    if isinstance(path, str):
        return path
    try:
        # Of what is named Pillow maps a plain TIFF into memory, at the size that it has once turned upright: scrambled.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                size = f"{opened.width}x{opened.height}"
                raise InvalidRequest(f"{name} image {path} has {size} pixels; use a smaller image")
            tiff = opened.format == "TIFF"  # which is upright once it is loaded
            if opened.mode == "F" or (tiff and opened.mode == "I"):  # in other files that holds 16 bits
                raise InvalidRequest(f"{name} image {path} has numbers of 32 bits, of any range; save it as 8 bit")
            return _eight_bit(opened if tiff else ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        why = "is not there; check the path"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        why = f"is no image that can be read; use {', '.join(FORMATS)}"
    raise InvalidRequest(f"{name} image {path} {why}")


def _eight_bit(image: Image.Image) -> np.ndarray:
    """``[H, W, 4]`` uint8; grey of 16 bits is scaled, where Pillow would cut it off at 255."""
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257.0).clip(0, 255).astype(np.uint8))
    return np.asarray(image.convert("RGBA"))


def _places(output: Path) -> tuple[Path, Path | None]:
    """The folder videos are kept in, and the file the user named, if it was one."""
    return (output.parent, output) if output.suffix.lower() == ".mp4" else (output, None)


def _told(result: Result, target: Path | None, state: Path) -> str:
    path, note = _copied(result, target, state)
    again = ", picked up and not paid for again" if result.resumed else ""
    first = f"{result.provider} {result.request_id}, {result.size:,} bytes{again}"
    return "\n".join([str(path), first, *told(result), *note])


def _copied(result: Result, target: Path | None, state: Path) -> tuple[Path, list[str]]:
    """Where the user wants the video, and where it is then; with a line to say if that is not the same."""
    if target is None:
        return result.path, []
    try:
        if _edited(target, result, state):
            return result.path, [f"{target} was changed since and is left as it is; move it away to have it made anew"]
        shutil.copyfile(result.path, target)
    except OSError as error:
        failed = error.strerror
    else:
        return target, []
    raise StorageError(f"{target} can't be written ({failed}); the video is kept as {result.path}")


def _edited(target: Path, result: Result, state: Path) -> bool:
    """Whether a file is newer than the video and no copy of any in the journal: what somebody made of it."""
    if not target.is_file() or target.stat().st_mtime <= result.path.stat().st_mtime:
        return False
    digest = sha256(target.read_bytes()).hexdigest()
    entries = Journal(folder=state / "jobs").entries() if digest != result.sha256 else []
    return digest != result.sha256 and all(entry.sha256 != digest for entry in entries)


def _keys(given: argparse.Namespace) -> Keys:
    return Keys(folder=given.state)


def _source(found: Keys, cloud: str) -> str:
    """Where the key of a cloud is set, or why none can be used."""
    try:
        return found.resolve(cloud).source
    except KeyMissing:
        return "not set"
    except KeyInvalid as error:
        return str(error)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)
