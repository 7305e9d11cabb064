"""What the person in front of the graph sees of a run on its node and in the log: bar, text, notices."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import comfy.utils
from comfy_execution.utils import get_executing_context

log = logging.getLogger("WanFLF2V")


def running_node() -> str | None:
    """The id of the node that runs here; threads of one's own do not know it."""
    context = get_executing_context()
    return None if context is None else context.node_id


def progress_bar(total: int, node: str | None = None) -> Callable[[int, Any], None]:
    """``show(done, preview)`` for a node, by default the running one; ``preview`` is :func:`previewer`'s, or None."""
    bar = comfy.utils.ProgressBar(total, node_id=node)
    return lambda done, preview: bar.update_absolute(done, total, preview)


def show_text(text: str, node: str | None = None) -> None:
    """A line on a node, by default the running one; nothing where none runs or the host can't show one."""
    module = sys.modules.get("server")  # never imported from here: outside a running server there is none
    node, server = node or running_node(), getattr(getattr(module, "PromptServer", None), "instance", None)
    context = get_executing_context()
    told = _notices.get((context.prompt_id, node), []) if context is not None and node is not None else []
    text = "\n".join([text, *told] if text else told)
    if node is not None and server is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node)


_notices: dict[tuple[str, str], list[str]] = {}  # prompt and node to what was told while the node ran


def notify(text: str) -> None:
    """A notice on the log, and on the running node, where it stays below whatever the node shows in this run."""
    log.warning("%s", text)
    context = get_executing_context()
    if context is None:
        return
    for key in [key for key in _notices if key[0] != context.prompt_id]:
        del _notices[key]
    _notices.setdefault((context.prompt_id, context.node_id), []).append(text)
    show_text("", context.node_id)
