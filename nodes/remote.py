"""What the cloud nodes share: a run of the library under the host's stop button, and its file as IMAGE and VIDEO."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..wan_local import video
from ..wan_remote import Folders, Interrupted, Keys, RemoteError, Request, Result, Watch, all_of, fetch, run_all
from ..wan_remote.collecting import told
from ..wan_remote.container import measure
from ..wan_remote.errors import InvalidRequest, StorageError
from ..wan_remote.providers import PROVIDERS
from ..wan_remote.request import MOST_TAKES
from ..wan_remote.watch import in_thread
from . import host, widgets
from .convert import picture
from .host import io
from .last_word import last_word, summary

T = TypeVar("T")
Lists = Mapping[str, Sequence[Any]]  # what a node gets that asks for lists: (None,) for what is not computed yet
WAIT = 30  # minutes
BAR = 1000
FRAME_BYTES = 3 * 4  # of a pixel in an IMAGE
BLANK = np.zeros((1, 1, 3), np.uint8)  # in the place of images that are not there yet
STOPPED = "stopped; the video is kept: queue the same inputs again for its frames, nothing is paid for again"


class NodeWatch(Watch):
    """Stages as text on the node, bytes on its bar, and the host's stop button. Made where the node runs."""

    def __init__(self) -> None:
        self._node = host.running_node()
        self._show = host.progress_bar(BAR, self._node)

    def interrupted(self) -> bool:
        return host.stop_asked()

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        if host.stop_asked():  # a thread that ends a little later must not write over the last word
            return
        host.show_text(text, self._node)
        if done is not None and total:
            self._show(round(BAR * min(done / total, 1.0)), None)


def keys() -> Keys:
    return Keys(folder=host.private_folder())


def folders() -> Folders:
    return Folders(state=host.private_folder(), output=host.results_folder())


def key_problem(provider: str) -> str | None:
    """Why a graph with this cloud can't run here, said before it starts; None if a key is set.

    For ``validate_inputs``, which names one input only, since the host repeats what it says for each that it names.
    """
    try:
        keys().resolve(provider)
    except RemoteError as error:
        return str(error)
    return None


def check_provider(provider: str | None) -> bool | str:
    """For ``validate_inputs`` of nodes with a choice of clouds; None is a linked value."""
    if provider is None:
        return True
    if provider not in PROVIDERS:
        return f"provider={provider!r} is not known; use {', '.join(PROVIDERS)}"
    return key_problem(provider) or True


def check(kind: type[Request], inputs: Lists) -> list[str]:
    """For ``check_lazy_status``: the images still to be computed, if everything else can be asked for.

    Raises:
        InvalidRequest: it can't. Typed or linked, it is told before anything upstream of the images runs.
    """
    rows = each(inputs)
    _numbered(lambda row: _request(kind, row, BLANK, BLANK), rows)
    return widgets.missing(rows[0])


def asked(kind: type[Request], inputs: Lists) -> list[Request]:
    """What a cloud is asked for, a request a clip.

    Raises:
        InvalidRequest: one of them can't be asked for: nothing is sent of any then.
    """

    def made(row: Mapping[str, Any]) -> Request:
        return _request(kind, row, *(pixels(row[name], name) for name in ("first_image", "last_image")))

    return _numbered(made, each(inputs))


def each(inputs: Lists) -> list[dict[str, Any]]:
    """The inputs of each clip. A list of one is everybody's.

    Raises:
        InvalidRequest: lists of different lengths. The host would repeat the last item; here that would be paid for.
    """
    lengths = {name: len(values) for name, values in inputs.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    count = lengths[longest]
    for name, length in lengths.items():
        if length not in (1, count):
            raise InvalidRequest(
                f"{name} is a list of {length} and {longest} one of {count}, and each clip is paid for; give as many "
                "of both, or one of them for all"
            )
    return [{name: values[min(index, len(values) - 1)] for name, values in inputs.items()} for index in range(count)]


def _request(kind: type[Request], row: Mapping[str, Any], first: np.ndarray, last: np.ndarray) -> Request:
    known = {field.name for field in fields(kind)}
    return kind(first=first, last=last, **{name: value for name, value in row.items() if name in known})


def _numbered(make: Callable[[dict[str, Any]], Request], rows: Sequence[dict[str, Any]]) -> list[Request]:
    """Every request; what is wrong with one of several says which."""
    made: list[Request] = []
    try:
        for row in rows:
            made.append(make(row))
    except InvalidRequest as error:
        if len(rows) == 1:
            raise
        said = f"clip {len(made) + 1} of {len(rows)}: {error}. Nothing was sent"
    else:
        return made
    raise InvalidRequest(said)


def pixels(image: Tensor, name: str) -> np.ndarray:
    """``[H, W, 3]`` uint8 of an IMAGE.

    Raises:
        InvalidRequest: a batch. Elsewhere in this pack its first picture is used; here that would be paid for.
    """
    if image.ndim == 4 and image.shape[0] > 1:
        count = image.shape[0]
        raise InvalidRequest(
            f"{name} is a batch of {count} images, which would be {count} clips to pay for; give one image, such as by "
            "core's ImageFromBatch, or a list if you want a clip of each"
        )
    return (picture(image, name).movedim(0, -1) * 255.0).round().byte().cpu().numpy()


def pictures() -> list[io.Image.Input]:
    return [
        io.Image.Input(
            "first_image", lazy=True, tooltip="The video starts here. Any size; no batch. A list makes a clip of each."
        ),
        io.Image.Input(
            "last_image", lazy=True, tooltip="The video ends here. Any size; no batch. A list makes a clip of each."
        ),
    ]


def minutes() -> io.Int.Input:
    return io.Int.Input(
        "wait_minutes",
        default=WAIT,
        min=1,
        max=24 * 60,
        optional=True,
        tooltip="Patience, first until the account has room for the job, then until it is done. When it runs out, "
        "queue the same inputs again.",
    )


def take() -> io.Int.Input:
    return io.Int.Input(
        "take",
        default=1,
        min=1,
        max=MOST_TAKES,
        optional=True,
        tooltip="The same inputs and take are one clip, which is paid for once. Another number makes and pays for "
        "another clip.",
    )


def graph(node: Any) -> str | None:
    """The workflow that a node runs in, as JSON, or the prompt of the API where there is none."""
    hidden = getattr(node, "hidden", None)
    workflow = (getattr(hidden, "extra_pnginfo", None) or {}).get("workflow")
    found = workflow or getattr(hidden, "prompt", None)
    try:
        return json.dumps(found) if found else None
    except (TypeError, ValueError):  # it is another's data
        return None


def seed() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=-1,
        min=-1,
        max=2**31 - 1,
        control_after_generate=False,  # None would bring it back, set to randomize: each Run would be another bill
        tooltip="-1 draws one, which is shown on the node. The same inputs and take are the same clip, also with -1.",
    )


def outputs() -> list[Any]:
    return [io.Image.Output("images", display_name="images"), io.Video.Output("video", display_name="video")]


def list_outputs() -> list[Any]:
    """The same and the id, each a list with an item a clip: of one, where one pair of images came."""
    return [
        io.Image.Output("images", display_name="images", is_output_list=True),
        io.Video.Output("video", display_name="video", is_output_list=True),
        io.String.Output("request_id", display_name="request_id", is_output_list=True),
    ]


async def make(node: Any, kind: type[Request], inputs: Lists) -> io.NodeOutput:
    """Have each clip made, or pick it up where an earlier run left it: what a cloud node does.

    Raises:
        RemoteError: one can't be had; the others are kept then, and are there when the same is queued again.
    """
    requests = asked(kind, inputs)
    making = run_all(
        kind.provider, [lambda request=request: request for request in requests], folders=folders(), watch=NodeWatch(),
        keys=keys(), wait_seconds=60.0 * max(inputs.get("wait_minutes", [WAIT])), graph=graph(node),
    )  # fmt: skip
    outcomes = await listening(making)
    with last_word() if len(outcomes) == 1 else nullcontext():  # a list says more by itself
        results = all_of(outcomes)
    return await _all_shown(results)


async def collect(provider: str, request_id: str) -> Result:
    return await listening(fetch(provider, request_id, folders=folders(), watch=NodeWatch(), keys=keys()))


async def listening(work: Awaitable[T]) -> T:
    """``work`` with the library's stop turned into the host's, which tells on the node what becomes of the job."""
    with last_word():
        try:
            return await work
        except Interrupted as error:
            said = str(error)
        host.log.info("%s", said)
        raise host.Stopped(said)


async def shown(result: Result) -> io.NodeOutput:
    """A result as a node's outputs.

    Frames are always decoded: the host knows what is wired to them, but keeps what a node gave when that changes.
    """
    images, lines = await _read(result, NodeWatch())
    host.show_text("\n".join(lines))
    return io.NodeOutput(images, host.video_file(result.path), ui=host.video_preview([result.path]))


async def _all_shown(results: Sequence[Result]) -> io.NodeOutput:
    """Results as the lists that a node gives, in their order. One after the other: frames take room."""
    watch, images, texts = NodeWatch(), [], []
    if len(results) > 1:
        await in_thread(lambda stop: _check_room(results), watch, STOPPED)
    for number, result in enumerate(results, 1):
        frames, lines = await _read(result, watch, f" ({number} of {len(results)})" if len(results) > 1 else "")
        images.append(frames)
        texts.append("\n".join(lines) if len(results) == 1 else f"{number}: {'; '.join(lines)}")
    host.show_text("\n".join(texts))
    videos = [host.video_file(result.path) for result in results]
    preview = host.video_preview([result.path for result in results])
    return io.NodeOutput(images, videos, [result.request_id for result in results], ui=preview)


def _check_room(results: Sequence[Result]) -> None:
    """Say that the frames of a list do not fit, before they take the host and all that is open in it down.

    Raises:
        StorageError: says where the files are.
    """
    clips = [clip for result in results if (clip := measure(result.path)) is not None]
    need, room = sum(clip.frames * clip.height * clip.width * FRAME_BYTES for clip in clips), host.room_for_results()
    if need > room:
        raise StorageError(
            f"all {len(results)} clips are here, in {results[0].path.parent}; their frames take {need / 2**30:.1f} GiB "
            f"of memory and {room / 2**30:.1f} are free: queue fewer at once, nothing is paid for again"
        )


async def _read(result: Result, watch: NodeWatch, which: str = "") -> tuple[Tensor, list[str]]:
    """The frames of a clip, IMAGE ``[F, H, W, 3]``, and what is said of it."""
    watch.stage(f"reading the frames of the video{which}")
    frames, fps = await listening(in_thread(lambda stop: _frames(result.path, stop), watch, STOPPED))
    again = ", not paid for again" if result.resumed else ""
    return frames.to(host.result_device()), [summary(frames, fps), f"{result.request_id}{again}", *told(result)]


def _frames(path: Path, stop: threading.Event) -> tuple[Tensor, float]:
    """All frames of a file and their rate. ``stop`` is looked at before each frame; once set, nobody waits for this."""

    def before_frame() -> None:
        if stop.is_set():
            raise Interrupted(STOPPED)

    return video.read(path, before_frame)


CATEGORY = f"{widgets.ROOT}/cloud"
GRAPH = [io.Hidden.prompt, io.Hidden.extra_pnginfo]
