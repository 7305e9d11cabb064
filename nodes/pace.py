"""How long a forward took on this machine, kept from run to run, so that the next one's time is known before it starts.

A file of a few kilobytes in the host's private folder: device and model -> frames x height x width -> seconds.
"""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

from ..wan_local.config import TransformerConfig
from ..wan_local.flops import transformer_forward
from ..wan_local.parallel.setup import Setup
from ..wan_local.shapes import Grid
from . import host

FILE = "pace.json"
_lock = threading.Lock()


def kind(setup: Setup, config: TransformerConfig, *, guided: bool) -> str:
    """What of a model its pace depends on, apart from the size of the clip.

    Raises:
        InputError: a split over GPUs that can't be.
    """
    split = str(setup.split(config, guided)[0]) if setup.gpus > 1 else ""
    options = [setup.attention, split, "fsdp" if setup.fsdp else "", "Ray" if setup.ray_address else ""]
    options += ["compiled" if setup.compiled else "", "unpacked" if setup.unpack else ""]
    options += ["fp8_fast" if setup.float8_matmul else ""]
    return ", ".join(["/".join(Path(setup.path).parts[-2:]), *filter(None, options)])


def remember(device: str, model: str, grid: Grid, seconds: float) -> None:
    """Keep the seconds that a forward took; a folder that can't be written to keeps nothing, and the run goes on."""
    path = host.private_folder() / FILE
    with _lock:
        known = _read(path)
        sizes = known.setdefault(f"{device} | {model}", {})
        sizes[f"{grid.frames}x{grid.height}x{grid.width}"] = round(seconds, 6)
        partial = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(known, indent=1), "utf-8")
            partial.replace(path)
        except OSError as error:
            host.log.info("the pace of this run is not kept: %s", error)


def forward_seconds(device: str, model: str, config: TransformerConfig, grid: Grid) -> tuple[float, bool] | None:
    """Seconds of a forward, and whether as many tokens were measured; of the nearest number, in proportion, else.

    None where this model has not run on this device yet.
    """
    sizes = _read(host.private_folder() / FILE).get(f"{device} | {model}", {})
    known = [(_grid(size), seconds) for size, seconds in sizes.items()]
    if not known:
        return None
    nearest, seconds = min(known, key=lambda each: abs(math.log(each[0].tokens / grid.tokens)))
    return seconds * transformer_forward(config, grid) / transformer_forward(
        config, nearest
    ), nearest.tokens == grid.tokens


def _grid(size: str) -> Grid:
    frames, height, width = map(int, size.split("x"))
    return Grid(frames=frames, height=height, width=width)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """What is kept, without whatever else stands in the file."""
    try:
        known = json.loads(path.read_text("utf-8"))
        return {
            str(key): {size: float(seconds) for size, seconds in sizes.items() if _grid(size)}
            for key, sizes in known.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
