"""A rank that is a process of ours: standard input brings messages, standard output takes the answers.

Three threads. The main one works, so that CUDA and torch.distributed live where they were made. One reads, and ends
the process the moment the driver is gone, whatever the main thread is blocked in; it also answers "are you there", so
a rank that waits for another one is told from a frozen one. One watches for a new parent (a copy of the driver's end
of the pipe may live on in a process that the driver has forked).
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

from .channel import Channel, to_the_driver
from .messages import Buffer, Header
from .rank import Rank

PING, PONG = b"ping", b"pong"
WATCH_SECONDS = 0.5


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; stopping is the driver's business
    channel = to_the_driver()
    inbox: queue.SimpleQueue[tuple[Header, list[bytearray]]] = queue.SimpleQueue()
    rank = Rank()
    threading.Thread(target=read, args=(channel, inbox, rank), daemon=True).start()
    threading.Thread(target=watch_the_parent, args=(rank,), daemon=True).start()
    while True:
        header, buffers = inbox.get()
        answer: tuple[Header, list[Buffer]] = rank.handle(header, buffers)
        try:
            channel.send(*answer)
        except OSError:
            leave(rank, 1)


def leave(rank: Rank, status: int = 0) -> None:
    """End this process at once, whatever its threads are blocked in."""
    try:
        rank.leave()
    finally:
        os._exit(status)


def read(channel: Channel, inbox: queue.SimpleQueue[tuple[Header, list[bytearray]]], rank: Rank) -> None:
    try:
        while True:
            header, buffers = channel.receive()
            if header == PING:
                channel.send(PONG)
            else:
                inbox.put((header, buffers))
    finally:  # end of file, or anything else: without a driver there is nothing to do
        leave(rank)


def watch_the_parent(rank: Rank) -> None:
    """End when the process that started this one is no longer its parent. Windows knows no such thing."""
    if os.name == "nt":
        return
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    leave(rank)
