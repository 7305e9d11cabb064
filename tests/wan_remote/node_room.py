"""The cloud nodes in a plain process: the pack's own files around a host that is made of nothing."""

from __future__ import annotations

import importlib
import itertools
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch

ROOT = Path(__file__).resolve().parents[2]
NUMBER = itertools.count()


class Stopped(BaseException):
    """The host's own interruption."""


class Room:
    """The pack under a name of its own, and what its nodes told the host.

    Attributes:
        stop: pressed or not.
        texts: lines shown on the node.
        notices: what stays below them.
    """

    def __init__(self, folder: Path) -> None:
        self.stop, self.texts, self.folder = threading.Event(), [], folder
        self.notices: list[str] = []
        self.name = f"pack_{next(NUMBER)}"
        self._place("", ROOT)
        self._place(".nodes", ROOT / "nodes")
        sys.modules[f"{self.name}.nodes"].host = sys.modules[f"{self.name}.nodes.host"] = self._host()  # type: ignore

    def part(self, name: str) -> Any:
        """A module of the pack, such as "nodes.gmi"."""
        return importlib.import_module(f"{self.name}.{name}")

    def _place(self, name: str, folder: Path) -> None:
        module = ModuleType(self.name + name)
        module.__path__ = [str(folder)]
        sys.modules[module.__name__] = module

    def _host(self) -> Any:
        host: Any = ModuleType(f"{self.name}.nodes.host")
        host.io = MagicMock()
        host.io.ComfyNode = type("ComfyNode", (), {})
        host.io.NodeOutput = lambda *values, ui=None: SimpleNamespace(values=values, ui=ui)
        host.log = logging.getLogger("WanFLF2V")
        host.running_node = lambda: "7"
        host.progress_bar = lambda total, node=None: lambda done, preview: None
        host.show_text = lambda text, node=None: self.texts.append(text)
        host.notify = self.notices.append
        host.stop_asked = self.stop.is_set
        host.Stopped = Stopped
        host.is_failure = lambda error: isinstance(error, Exception)
        host.private_folder = lambda: self.folder / "private"
        host.results_folder = lambda: self.folder / "output"
        host.room_for_results = lambda: 2**40
        host.result_device = lambda: torch.device("cpu")
        host.video_file = lambda path: path
        host.video_preview = lambda paths: {}
        host.temporary_image = lambda image: {}
        return host


@contextmanager
def room(folder: Path) -> Iterator[Room]:
    made = Room(folder)
    try:
        yield made
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == made.name]:
            del sys.modules[name]
