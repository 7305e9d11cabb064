"""What each command does; every one gives the text to print."""

from __future__ import annotations

import argparse
import getpass
import json
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..account import account, status
from ..collecting import told
from ..errors import InvalidRequest, KeyInvalid, KeyMissing, StorageError
from ..journal import Journal
from ..keys import WHERE, Keys
from ..request import GMIRequest, Request, WaveSpeedRequest
from ..run import Result, fetch, run
from ..session import Folders
from ..watch import Watch

MOST_PIXELS = 2**28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # those that Pillow decodes by itself


async def generate(given: argparse.Namespace, watch: Watch) -> str:
    output, target = _places(given.output)
    result = await run(
        _request(given), folders=Folders(state=given.state, output=output), watch=watch, keys=_keys(given),
        wait_seconds=60.0 * given.wait,
    )  # fmt: skip
    return _told(result, target)


async def collect(given: argparse.Namespace, watch: Watch) -> str:
    output, target = _places(given.output)
    result = await fetch(
        given.provider, given.id, folders=Folders(state=given.state, output=output), watch=watch, keys=_keys(given),
        wait_seconds=60.0 * given.wait,
    )  # fmt: skip
    return _told(result, target)


async def show_status(given: argparse.Namespace, watch: Watch) -> str:
    return _json(await status(given.provider, given.id, keys=_keys(given), watch=watch, state=given.state))


async def ask_account(given: argparse.Namespace, watch: Watch) -> str:
    what = {"list": "requests"}.get(given.command, given.command)
    inputs: dict[str, Any] = {}
    if what == "price" and given.provider == "wavespeed":
        inputs = _wavespeed_options(given)
    return _json(await account(given.provider, what, keys=_keys(given), watch=watch, inputs=inputs))


async def jobs(given: argparse.Namespace, watch: Watch) -> str:
    entries = Journal(folder=given.state / "jobs").entries()
    rows = [
        f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(entry.intent_at))}  {entry.provider:9}  {entry.state:9}  "
        f"{entry.id or '-':38}  seed {entry.seed}  take {entry.take}  {entry.parameters.get('prompt', '')[:60]}"
        for entry in entries
    ]
    return "\n".join(rows) or f"no jobs in {given.state}"


async def keys(given: argparse.Namespace, watch: Watch) -> str:
    """Store a key, or say where keys are set. For ComfyUI the folder is ``user/__wan_flf2v``."""
    found = _keys(given)
    if given.cloud:
        typed = getpass.getpass(f"key for {given.cloud}: ") if sys.stdin.isatty() else sys.stdin.readline()
        return f"stored in {found.save(given.cloud, typed)}"
    return "\n".join(f"{name}: {_source(found, name)}" for name in WHERE)


COMMANDS: dict[str, Callable[[argparse.Namespace, Watch], Coroutine[Any, Any, str]]] = {
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
    both = {"first": _picture(given.first), "last": _picture(given.last), "prompt": given.prompt}
    both |= {"seed": given.seed, "fit": given.fit, "take": given.take}
    if given.provider == "gmi":
        return GMIRequest(**both, video_length=given.video_length, prompt_extend=given.prompt_extend)
    return WaveSpeedRequest(**both, **_wavespeed_options(given))


def _wavespeed_options(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "negative_prompt": given.negative,
        "duration": given.duration,
        "size": given.size,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance,
        "enable_safety_checker": not given.no_safety_checker,
    }


def _picture(path: Path) -> np.ndarray:
    """A picture file as ``[H, W, 4]`` uint8, turned as its camera says, opaque where it has no transparency."""
    from PIL import ImageOps

    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise InvalidRequest(f"{path} has {opened.width}x{opened.height} pixels; use a smaller picture")
            image = ImageOps.exif_transpose(opened)
            return np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        why = "is not there; check the path"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        why = f"is no picture that can be read; use {', '.join(FORMATS)}"
    raise InvalidRequest(f"{path} {why}")


def _places(output: Path) -> tuple[Path, Path | None]:
    """The folder videos are kept in, and the file the user named, if it was one."""
    return (output.parent, output) if output.suffix.lower() == ".mp4" else (output, None)


def _told(result: Result, target: Path | None) -> str:
    path = result.path
    if target is not None:
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            failed = error.strerror
        else:
            failed, path = None, target
        if failed:
            raise StorageError(f"{target} can't be written ({failed}); the video is kept as {result.path}")
    again = ", picked up and not paid for again" if result.resumed else ""
    first = f"{result.provider} {result.request_id}, {result.size:,} bytes{again}"
    return "\n".join([str(path), first, *told(result)])


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
