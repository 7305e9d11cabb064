"""Post a graph to a running ComfyUI, follow it to its end, get its video.

    python docs/api/comfyui_queue.py first.png last.png "a white circle moves over the top" clip.mp4

Needs aiohttp, which ComfyUI's own Python has. The graph is a file of ``workflows/api``; one of your own comes from the
editor: Workflow, Export (API).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import aiohttp

GRAPH = Path(__file__).parents[2] / "workflows" / "api" / "wan_flf2v_nano_model.json"
FIRST, LAST, MAKER, SAVER = "2", "3", "4", "5"  # nodes of that graph


async def main(args: argparse.Namespace) -> None:
    args.output.parent.mkdir(parents=True, exist_ok=True)  # now, and not when the clip is there
    address = args.server if "://" in args.server else f"http://{args.server}"
    async with aiohttp.ClientSession(address) as comfyui:
        graph = json.loads(GRAPH.read_text("utf-8"))
        graph[FIRST]["inputs"]["image"] = await upload(comfyui, args.first)
        graph[LAST]["inputs"]["image"] = await upload(comfyui, args.last)
        graph[MAKER]["inputs"] |= {"prompt": args.prompt, "seed": args.seed, "steps": args.steps}
        outputs = await run(comfyui, graph)
        (saved,) = outputs[SAVER]["images"]  # a video too is listed under this name
        args.output.write_bytes(await download(comfyui, saved))
    print(f"{args.output} ({args.output.stat().st_size} bytes)")


async def upload(comfyui: aiohttp.ClientSession, path: Path) -> str:
    """Put an image into ComfyUI's input folder; return the name that Load Image knows it by."""
    form = aiohttp.FormData()
    form.add_field("image", path.read_bytes(), filename=path.name)
    async with comfyui.post("/upload/image", data=form) as answer:
        answer.raise_for_status()
        return (await answer.json())["name"]  # another one where that name was taken by another image


async def run(comfyui: aiohttp.ClientSession, graph: dict[str, Any]) -> dict[str, Any]:
    """Queue a graph and wait for it; return what its nodes showed: node id to names of files, texts ..."""
    client = uuid.uuid4().hex
    # First the socket, then the graph: one that is done at once has been told of already.
    async with comfyui.ws_connect("/ws", params={"clientId": client}, max_msg_size=0) as messages:
        async with comfyui.post("/prompt", json={"prompt": graph, "client_id": client}) as answer:
            told = await answer.json()
            if answer.status != 200:  # which node and which input stands in node_errors
                sys.exit(json.dumps(told, indent=2))
        prompt = told["prompt_id"]
        async for message in messages:
            if message.type is not aiohttp.WSMsgType.TEXT:  # a preview image
                continue
            event = json.loads(message.data)
            data = event.get("data") or {}
            if data.get("prompt_id") != prompt:
                continue
            if event["type"] == "progress":
                print(f"{data['value']} of {data['max']}", file=sys.stderr)
            elif event["type"] == "execution_error":
                sys.exit(f"{data['node_type']}: {data['exception_message']}")
            elif event["type"] == "execution_interrupted":
                sys.exit("stopped in ComfyUI")
            elif event["type"] == "executing" and data["node"] is None:
                break  # execution_success comes earlier: the history may not have the result by then
        else:
            sys.exit("ComfyUI closed the connection; the graph may go on there")
    async with comfyui.get(f"/history/{prompt}") as answer:
        return (await answer.json())[prompt]["outputs"]


async def download(comfyui: aiohttp.ClientSession, file: dict[str, str]) -> bytes:
    async with comfyui.get("/view", params=file) as answer:
        answer.raise_for_status()
        return await answer.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("last", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("output", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    try:
        asyncio.run(main(parser.parse_args()))
    except (aiohttp.ClientError, OSError) as error:  # no ComfyUI at that address, no such image
        sys.exit(str(error))
