"""The helper process that speaks to Ray for the driver. It needs no torch and does not look into messages.

    from the driver    {"open": settings}   {"to": ranks} + message   {"ping": ranks}   {"end": seconds}
    to the driver      {"seats": [...]} or {"failed"/"refused": text}   {"answer": rank} + message   {"pong": rank}
                       {"gone": rank, "cause": text}   {"ended": [process numbers still there]}

One thread for each rank waits for that rank; the main thread reads the driver's messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import threading
from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from .channel import Channel, to_the_driver
from .cluster import Cluster
from .errors import one_line
from .messages import Buffer

REACH_SECONDS = 5.0


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(
        os.sep
    )  # Ray puts this folder first on the path of every worker; in ComfyUI's own, utils/ would hide others
    Bridge(to_the_driver()).run()


class Bridge:
    """Everything between one driver and one Ray cluster."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox: queue.SimpleQueue[tuple[dict[str, Any], list[bytearray]]] = queue.SimpleQueue()
        self._cluster: Cluster | None = None
        self._alone = False  # whether Ray was started for this group, and ends with it
        self._lanes: list[queue.SimpleQueue[tuple[bytes, Sequence[Any]]]] = []

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._open(self._inbox.get()[0]["open"])
        except InputError as error:
            self._leave({"refused": str(error)})
        except BaseException as error:
            self._leave({"failed": f"Ray: {type(error).__name__}: {one_line(error)}"})
        while True:
            self._serve(*self._inbox.get())

    def _read(self) -> None:
        """The life line: without a driver the ranks of this machine are ended at once, and Ray ends the others."""
        try:
            while True:
                header, buffers = self._channel.receive()
                self._inbox.put((json.loads(header), buffers))
        finally:
            if self._cluster is not None:
                self._cluster.kill_here()
            if self._alone:
                os.killpg(0, signal.SIGKILL)  # this process too; the bridge leads a session of its own
            os._exit(0)

    def _open(self, settings: dict[str, Any]) -> None:
        if settings["address"] not in ("", "auto"):
            asyncio.run(reach(settings["address"]))
        self._alone = not settings["address"]
        self._cluster = Cluster(settings)
        seats = self._cluster.open()
        for rank in range(len(seats)):
            lane: queue.SimpleQueue[tuple[bytes, Sequence[Any]]] = queue.SimpleQueue()
            self._lanes.append(lane)
            threading.Thread(target=self._lane, args=(rank, lane), daemon=True).start()
        self._tell({"seats": seats})

    def _serve(self, header: dict[str, Any], buffers: list[bytearray]) -> None:
        assert self._cluster is not None
        if "to" in header:
            head, arguments = bytes(buffers[0]), self._cluster.share(buffers[1:])
            for rank in header["to"]:
                self._lanes[rank].put((head, arguments))
        elif "ping" in header:
            for rank in header["ping"]:
                threading.Thread(target=self._ping, args=(rank,), daemon=True).start()
        elif "end" in header:
            self._leave({"ended": self._cluster.end(header["end"])})

    def _lane(self, rank: int, lane: queue.SimpleQueue[tuple[bytes, Sequence[Any]]]) -> None:
        assert self._cluster is not None
        while True:
            head, arguments = lane.get()
            try:
                answer, blocks = self._cluster.ask(rank, head, arguments)
            except Exception as error:
                self._tell({"gone": rank, "cause": self._cluster.cause(error)})
                return
            self._tell({"answer": rank}, answer, *blocks)

    def _ping(self, rank: int) -> None:
        assert self._cluster is not None
        try:
            if self._cluster.beats(rank):
                self._tell({"pong": rank})
        except Exception as error:  # between two calls nobody else sees that a rank is lost
            self._tell({"gone": rank, "cause": self._cluster.cause(error)})

    def _tell(self, header: dict[str, Any], *buffers: Buffer) -> None:
        try:
            self._channel.send(json.dumps(header).encode(), buffers)
        except OSError:
            os._exit(1)

    def _leave(self, word: dict[str, Any]) -> None:
        """Say the last word and end; a Ray that was started for this group goes with it."""
        self._tell(word)
        if self._cluster is not None:
            self._cluster.leave()
        os._exit(0)


async def reach(address: str) -> None:
    """Fail at once where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), REACH_SECONDS)
    except (OSError, asyncio.TimeoutError) as error:
        why = one_line(error) or f"no answer within {REACH_SECONDS:g} s"
        raise InputError(
            f"no Ray head node at {address} ({why}); start one with: ray start --head --port=6379"
        ) from None
    writer.close()
