"""A clip from WaveSpeedAI, paid for once however often this is run with the same inputs.

    WAVESPEED_API_KEY=... python docs/api/cloud_clip.py first.png last.png "the sun sets" clips

Needs requests, numpy, Pillow and PyAV; no torch.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # the pack is a folder, not an installed package

from wan_remote import Folders, RemoteError, Watch, WaveSpeedRequest, run  # noqa: E402


class Shown(Watch):
    """What the run tells; ``interrupted`` would stop it, and the job would go on in the cloud."""

    def stage(self, text: str, done: float | None = None, total: float | None = None) -> None:
        print(text, file=sys.stderr)

    def accepted(self, request_id: str) -> None:
        print(f"job {request_id}", file=sys.stderr)


async def main(args: argparse.Namespace) -> None:
    request = WaveSpeedRequest(
        first=np.asarray(Image.open(args.first).convert("RGB")),  # [H, W, 3] uint8
        last=np.asarray(Image.open(args.last).convert("RGB")),
        prompt=args.prompt,
        size="832*480",
        duration=5,  # seconds
        seed=1,
    )
    # The journal, in `state`, is what keeps a second run from paying again: keep it as long as the account.
    folders = Folders(state=args.folder / "journal", output=args.folder)
    result = await run(request, folders=folders, watch=Shown())
    print(f"{result.path}, {'not paid for again' if result.resumed else 'new'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("last", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("folder", type=Path)
    try:
        asyncio.run(main(parser.parse_args()))
    except (RemoteError, OSError) as error:  # one line: what happened, whether it was paid, what to do
        sys.exit(str(error))
