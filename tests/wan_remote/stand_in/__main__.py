"""Run the stand-in until its standard input ends; prints its ports as one JSON line.

``python tests/wan_remote/stand_in/__main__.py --port 0 --control FILE...``
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]  # this folder's own modules must not stand at the top level

from stand_in.serving import Servers  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port of the API; 0 takes a free one")
    parser.add_argument("--control", nargs="*", default=[], metavar="FILE", help="JSON commands, applied at the start")
    arguments = parser.parse_args()
    servers = Servers(arguments.port)
    for name in arguments.control:
        servers.state.command(json.loads(Path(name).read_text("utf-8")))
    servers.start()
    print(json.dumps(servers.ports), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()  # ends with its parent: a stand-in never outlives the tests


if __name__ == "__main__":
    main()
