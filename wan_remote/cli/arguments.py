"""What can be said on the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..command import program
from ..providers import PROVIDERS, Provider
from ..providers.base import QUESTIONS
from ..request import FITS, MOST_TAKES
from .options import add_options

PRIVATE = "__wan_flf2v"  # below the user folder of a ComfyUI, whose nodes keep their journal there
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SHARED = {
    "status": "how one request stands",
    "fetch": "download what a request made; costs nothing",
    "list": "requests at the cloud",
    **QUESTIONS,
}
"""Commands of every cloud, in words."""


def parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    top = argparse.ArgumentParser(
        prog=program(),
        description=f"Make a video between two images at {' or '.join(cloud.label for cloud in PROVIDERS.values())}, "
        "or collect one made before.",
        epilog=f"Keys come from {' and '.join(cloud.key_variable for cloud in PROVIDERS.values())}, else from the "
        "private file that `keys CLOUD` writes into --state. Exit status: 0 done, 1 failed (one line says why), "
        "2 wrong use, 130 stopped.",
    )
    places = top.add_subparsers(dest="provider", required=True, metavar="|".join((*PROVIDERS, "jobs", "keys")))
    for name, cloud in PROVIDERS.items():
        place = places.add_parser(name, help=f"{cloud.label}: {', '.join(('generate', *SHARED))}")
        commands = place.add_subparsers(dest="command", required=True, metavar="command")
        generate = commands.add_parser("generate", help="make a clip; costs money once for the same inputs")
        _images(generate, cloud)
        add_options(generate, cloud)
        _folders(generate, output=True)
        for command in SHARED:
            _shared(commands, command, cloud)
    jobs = places.add_parser("jobs", help="what was asked for from this machine, and what became of it")
    jobs.set_defaults(command="jobs")
    _folders(jobs, output=False)
    keys = places.add_parser("keys", help="where keys are set; with a cloud: store one, asked for without showing it")
    keys.set_defaults(command="keys")
    keys.add_argument("cloud", nargs="?", choices=tuple(PROVIDERS), help="store its key, from the keyboard")
    _folders(keys, output=False)
    return top


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was said, if it makes sense; else the program ends with 2."""
    top = parser()
    given = top.parse_args(arguments)
    if given.command == "generate":
        if given.jobs is None and (given.first is None or given.last is None):
            top.error("generate needs --first and --last, or --jobs")
        if (given.jobs is not None or given.takes > 1) and given.output.suffix.lower() == ".mp4":
            top.error(f"--output {given.output} is one file, and several clips are asked for; name a folder")
    return given


def image(text: str) -> Path | str:
    """A file, or an address as it is."""
    return text if ADDRESS.match(text) else Path(text)


def state_folder(text: str) -> Path:
    """Where a journal is kept, from that folder or the one of a ComfyUI, whose nodes may not have run yet."""
    folder = Path(text)
    inside = folder / "user" / PRIVATE
    own, of_nodes = ((place / "jobs").is_dir() for place in (folder, inside))
    if own and of_nodes:  # each knows of clips that the other would pay for again
        raise argparse.ArgumentTypeError(
            f"{text!r} has two journals; move what is in {folder / 'jobs'} to {inside / 'jobs'}, and remove that folder"
        )
    return inside if _is_comfyui(folder) and not own else folder


def default_state() -> Path:
    """Where the journal is kept if nothing else is said: with that of the ComfyUI which this pack lies in, so that the
    same inputs are one clip here and there; else where this machine keeps what programs know."""
    for pack in _packs():
        base = pack.parent.parent
        if pack.parent.name == "custom_nodes" and _is_comfyui(base):
            return base / "user" / PRIVATE
    return own_state()


def _is_comfyui(base: Path) -> bool:
    return (base / "user").is_dir() or (base / "folder_paths.py").is_file()


def _packs() -> Iterator[Path]:
    """The pack's folder by its names: the one it was started under, and the one by which the shell came here, which
    may go through a link in custom_nodes."""
    pack, here = Path(__file__).absolute().parents[2], Path(os.environ.get("PWD", ""))
    yield pack
    with contextlib.suppress(OSError):
        if here.is_absolute() and here.samefile(pack):
            yield here


def own_state() -> Path:
    """Where the journal is kept where there is no ComfyUI."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        said = os.environ.get("XDG_DATA_HOME", "")  # a relative one is to be ignored, says the XDG specification
        base = said if os.path.isabs(said) else str(Path.home() / ".local" / "share")
    return Path(base) / "wan_flf2v"


def _images(generate: argparse.ArgumentParser, cloud: Provider) -> None:
    where = "the video {} here: a file"
    if cloud.request.addresses:
        where += ", or an https address, which the cloud fetches as it is"
    generate.add_argument("--first", type=image, metavar="IMG", help=where.format("starts"))
    generate.add_argument("--last", type=image, metavar="IMG", help=where.format("ends"))
    generate.add_argument("--prompt", default="", help="what happens in between")
    generate.add_argument("--seed", type=int, default=-1, help="0 to 2147483647; -1 (default) draws one and says it")
    generate.add_argument("--fit", choices=FITS, default="crop", help="for images of another aspect (default: crop)")
    generate.add_argument(
        "--take", type=int, default=1, metavar="N",
        help="the same inputs are one clip, paid once; another number pays again, for another clip only with the seed "
        "at -1, which draws one for each take (default: 1)",
    )  # fmt: skip
    generate.add_argument(
        "--takes", type=_count, default=1, metavar="N",
        help="so many clips of the same inputs, from --take on, each to be paid for; with the seed at -1 (default: 1)",
    )  # fmt: skip
    generate.add_argument(
        "--jobs", type=Path, metavar="FILE.csv|DIR",
        help="many clips: a CSV file with a line a clip and these options as columns (first, last, prompt, seed, take, "
        "..., and name for that of the video), paths beside it; or a folder of NAME_first.png, NAME_last.png and, if "
        "you like, NAME.txt with the prompt. What is not said there is as said here",
    )  # fmt: skip


def _shared(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, cloud: Provider) -> None:
    able = [other.label for other in PROVIDERS.values() if name not in QUESTIONS or name in other.questions({})]
    only = f" ({', '.join(able)})" if len(able) < len(PROVIDERS) else ""
    command = commands.add_parser(name, help=SHARED[name] + only)
    if name in ("status", "fetch"):
        command.add_argument("id", help="of the request")
    if name == "price" and name in cloud.questions({}):
        add_options(command, cloud)
    _folders(command, output=name == "fetch")


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= MOST_TAKES:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of clips; give a whole number from 1 to {MOST_TAKES}")


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if minutes > 0.0:  # nan is not
        return minutes
    raise argparse.ArgumentTypeError(f"{text!r} is no time to wait; give minutes, more than 0")


def _folders(command: argparse.ArgumentParser, *, output: bool) -> None:
    command.add_argument(
        "--state", type=state_folder, default=default_state(), metavar="DIR",
        help="folder of the journal of jobs and of stored keys, or that of a ComfyUI (default: %(default)s)",
    )  # fmt: skip
    if output:
        command.add_argument(
            "--output", type=Path, default=Path("output"), metavar="DIR|FILE.mp4",
            help="where the video goes (default: %(default)s)",
        )  # fmt: skip
        command.add_argument("--wait", type=_minutes, default=30.0, metavar="MINUTES", help="patience (default: 30)")
