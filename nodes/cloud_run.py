"""What the cloud nodes do: a run of the library under the host's stop button, and its file as IMAGE and VIDEO."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..wan_local import video
from ..wan_local.settings import FIT
from ..wan_local.words import counted
from ..wan_remote import Folders, Interrupted, Keys, RemoteError, Request, Result, Watch, all_of, fetch, run_all
from ..wan_remote.collecting import told
from ..wan_remote.container import measure
from ..wan_remote.errors import StorageError
from ..wan_remote.providers import PROVIDERS
from ..wan_remote.request import same_again
from ..wan_remote.watch import in_thread
from . import ends_view, host
from .cloud_inputs import WAIT, Lists, inputs_of_each, requests
from .host import io
from .progress import BAR, ending, summary
from .sockets.image import one_image

T = TypeVar("T")
FRAME_BYTES = 3 * 4  # of a pixel in an IMAGE
STOPPED = "stopped; the video is kept: queue the same inputs again for its frames, nothing is paid for again"


_given: set[Path] = set()  # files of clips that nodes gave since the host was started


class NodeWatch(Watch):
    """Stages as text on the node, bytes on its bar, and the host's stop button. Made where the node runs."""

    def __init__(self) -> None:
        self._node = host.running_node()
        self._show = host.progress_bar(BAR, self._node)

    def interrupted(self) -> bool:
        return host.stop_asked()

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        if host.stop_asked():  # a thread that ends a little later must not write over the last line
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


def graph(node: Any) -> str | None:
    """The workflow that a node runs in, as JSON, or the prompt of the API where there is none."""
    hidden = getattr(node, "hidden", None)
    workflow = (getattr(hidden, "extra_pnginfo", None) or {}).get("workflow")
    found = workflow or getattr(hidden, "prompt", None)
    try:
        return json.dumps(found) if found else None
    except (TypeError, ValueError):  # it is another's data
        return None


async def make(node: Any, kind: type[Request], inputs: Lists) -> io.NodeOutput:
    """Have each clip made, or pick it up where an earlier run left it: what a cloud node does.

    Raises:
        RemoteError: one can't be had; the others are kept then, and are there when the same is queued again.
    """
    asked = requests(kind, inputs)
    again = next(filter(None, (same_again(request.seed, request.take) for request in asked)), "")
    if again:
        host.notify(again)
    makers = [lambda request=request: request for request in asked]
    making = run_all(
        kind.provider, makers, folders=folders(), watch=NodeWatch(), keys=keys(), graph=graph(node),
        wait_seconds=60.0 * max(inputs.get("wait_minutes", [WAIT])),
    )  # fmt: skip
    outcomes = await listening(making)
    with ending() if len(outcomes) == 1 else nullcontext():  # a list says more by itself
        results = all_of(outcomes)
    return await all_shown(results, inputs_of_each(inputs))


def missing_files() -> str:
    """For ``fingerprint_inputs`` of nodes that give clips of clouds: something new once a file of theirs is deleted.
    The host would go on giving what is no longer there; asked again, the node brings it, and pays for nothing."""
    return " ".join(sorted(str(path) for path in _given if not path.is_file()))


async def collect(provider: str, request_id: str) -> Result:
    return await listening(fetch(provider, request_id, folders=folders(), watch=NodeWatch(), keys=keys()))


async def listening(work: Awaitable[T]) -> T:
    """``work`` with the library's stop turned into the host's, which tells on the node what becomes of the job."""
    with ending():
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


async def all_shown(results: Sequence[Result], clips: Sequence[Mapping[str, Any]] = ()) -> io.NodeOutput:
    """Results as the lists that a node gives, in their order. One after the other: frames take room.

    Args:
        results: what was made.
        clips: the inputs of each; without them the ends are not compared.
    """
    watch, images, texts, shown = NodeWatch(), [], [], []
    if len(results) > 1:
        await in_thread(lambda stop: _check_room(results), watch, STOPPED)
    for number, (result, clip) in enumerate(zip_longest(results, clips), 1):
        frames, lines = await _read(result, watch, f" ({number} of {len(results)})" if len(results) > 1 else "")
        images.append(frames)
        if clip is not None:
            shown.extend(await listening(in_thread(partial(_ends, frames, clip), watch, STOPPED)))
        texts.append("\n".join(lines) if len(results) == 1 else f"{number}: {'; '.join(lines)}")
    host.show_text("\n".join(texts))
    videos = [host.video_file(result.path) for result in results]
    preview = host.video_preview([result.path for result in results])
    ids = [result.request_id for result in results]
    return io.NodeOutput(images, videos, ids, ui={**preview, ends_view.KEY: shown})


def _check_room(results: Sequence[Result]) -> None:
    """Say that the frames of a list do not fit, before they take the host and all that is open in it down.

    Raises:
        StorageError: says where the files are.
    """
    clips = [clip for result in results if (clip := measure(result.path)) is not None]
    need, room = sum(clip.frames * clip.height * clip.width * FRAME_BYTES for clip in clips), host.room_for_results()
    if need > room:
        raise StorageError(
            f"all {counted(len(results), 'clip')} are here, in {results[0].path.parent}; their frames take "
            f"{need / 2**30:.1f} GiB of memory and {room / 2**30:.1f} are free: queue fewer at once, nothing is paid "
            "for again"
        )


async def _read(result: Result, watch: NodeWatch, which: str = "") -> tuple[Tensor, list[str]]:
    """The frames of a clip, IMAGE ``[F, H, W, 3]``, and what is said of it."""
    _given.add(result.path)
    watch.stage(f"reading the frames of the video{which}")
    frames, fps = await listening(in_thread(lambda stop: _frames(result.path, stop), watch, STOPPED))
    again = ", not paid for again" if result.resumed else ""
    return frames.to(host.result_device()), [summary(frames, fps), f"{result.request_id}{again}", *told(result)]


def _ends(frames: Tensor, clip: Mapping[str, Any], stop: threading.Event) -> list[dict[str, Any]]:
    """How exactly a clip of these inputs starts and ends at its images, for the page."""
    given = (one_image(clip[name], name) for name in ("first_image", "last_image"))
    return ends_view.of_clip(frames, dict(zip((0, len(frames) - 1), given, strict=True)), clip.get("fit", FIT))


def _frames(path: Path, stop: threading.Event) -> tuple[Tensor, float]:
    """All frames of a file and their rate. ``stop`` is looked at before each frame; once set, nobody waits for this."""

    def before_frame() -> None:
        if stop.is_set():
            raise Interrupted(STOPPED)

    return video.read(path, before_frame)
