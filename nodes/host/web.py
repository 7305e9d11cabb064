"""Addresses of ComfyUI's server that the pack's own pages in the editor ask. The only place that makes any.

Who asks is checked here once: a page of this server, or a program, which names no origin. A page of another site is
refused, whatever the server itself lets through (ComfyUI 0.8.0, and any with ``--enable-cors-header``).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from .progress import log

ROOT = "/wan_flf2v"
OWN = ("same-origin", "none")  # what a browser says of a page of this server, and of an address that was typed
FRESH = {"Cache-Control": "no-store"}
JSON = "application/json"


class Refused(Exception):  # noqa: N818
    """What was asked for can't be given; the text is for the person in front of the editor.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Picture:
    """An answer that is no JSON: the bytes of a JPEG."""

    data: bytes


def answer(method: str, path: str, give: Callable[[Mapping[str, Any]], Any]) -> None:
    """Answer ``path`` below :data:`ROOT` with what ``give`` makes of the question; nothing outside a server.

    Args:
        method: "get", whose question is the query, all texts; or "post", whose question is a JSON object.
        path: begins with a slash.
        give: runs in a thread; gives what JSON can hold, or a :class:`Picture`. May raise :class:`Refused`.
    """
    module: Any = sys.modules.get("server")  # never imported from here: outside a running server there is none
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is not None:
        getattr(server.routes, method)(ROOT + path)(partial(handle, module.web, give))


async def handle(web: Any, give: Callable[[Mapping[str, Any]], Any], request: Any) -> Any:
    """One request, with ``web`` of aiohttp."""
    try:
        if not is_own(request.headers):
            raise Refused("asked for by a page of another site", 403)
        asked = dict(request.query) if request.method == "GET" else await _body(request)
        given = await asyncio.get_running_loop().run_in_executor(None, give, asked)
    except Refused as error:
        return web.json_response({"problem": str(error)}, status=error.status, headers=FRESH)
    except Exception as error:  # noqa: BLE001, whose text may hold anything, and the server would show it
        log.error("the answer to %s failed with %s", request.path, type(error).__name__)
        return web.json_response(
            {"problem": f"an error of the server: {type(error).__name__}"}, status=500, headers=FRESH
        )
    if isinstance(given, Picture):
        return web.Response(body=given.data, content_type="image/jpeg", headers={"Cache-Control": "private"})
    return web.json_response(given, headers=FRESH)


def is_own(headers: Mapping[str, str]) -> bool:
    """Whether a page of this server sent it, or no page at all.

    A browser's own word counts before the names, which a proxy in between may change.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in OWN
    origin = headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("Host", "").lower()


async def _body(request: Any) -> dict[str, Any]:
    """The object that was posted. Only as JSON: any page may post a form without asking first."""
    try:
        found = await request.json() if request.content_type == JSON else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused("the request is no JSON object", 415)
    return found
