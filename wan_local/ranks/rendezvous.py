"""Where the ranks of a group find each other: torch's store, kept from everybody else.

On one machine that is a file in a folder which only this user can enter: there is no port. Over machines it is torch's
server, at the one address by which the ranks know each other, under keys that begin with a secret of the group. Whoever
can reach that port can still disturb the group, or list its keys: torch's server asks nobody who he is.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from .messages import Fields

PREFIX = "wan-ranks-"
SECRET_BYTES = 16
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


class Rendezvous:
    """One rank's side of it."""

    def __init__(self) -> None:
        self._server: Any = None
        self._folder = ""

    def open(self, host: str, world: int, limit: float) -> Fields:
        """Rank 0 opens the place; where it is, for :meth:`join`.

        Args:
            host: address of this machine at which the others reach it; empty where all are on this machine.
            limit: seconds for any wait.

        Raises:
            RuntimeError: nothing can listen at that address.
        """
        if not host:
            self._folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")  # mode 0700
            return {"folder": self._folder}
        import torch.distributed as dist

        try:
            listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise RuntimeError(f"{host} is no address of {platform.node()} to listen at: {error}") from None
        port = listener.getsockname()[1]
        options: Fields = {
            "host_name": host, "port": port, "world_size": world, "is_master": True, "wait_for_workers": False,
            "timeout": timedelta(seconds=limit),
            "master_listen_fd": listener.detach(),  # left to itself, torch would listen at every address
        }  # fmt: skip
        try:
            self._server = dist.TCPStore(**options)
        except NotImplementedError:  # torch 2.5: its newer server takes no socket of others
            self._server = dist.TCPStore(**options, use_libuv=False)
        return {"host": host, "port": port}

    def join(self, where: Fields, world: int, limit: float) -> Any:
        """The store; ``where`` as :meth:`open` gave it, with the group's ``secret`` where there is a server."""
        import torch.distributed as dist

        if "folder" in where:
            self._folder = where["folder"]
            store: Any = dist.FileStore(str(Path(self._folder) / "store"), world)
            store.set_timeout(timedelta(seconds=limit))
            return store
        store = self._server
        if store is None:
            store = dist.TCPStore(where["host"], where["port"], world, False, timeout=timedelta(seconds=limit))
        return dist.PrefixStore(where["secret"], store)

    def leave(self) -> None:
        """Take the folder away; the ranks are ending."""
        remove(self._folder)


def remove(folder: str) -> None:
    """Take the folder of a rendezvous away, if there is one; also twice, and for several ranks at once."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def bind_gloo(address: str) -> None:
    """Let gloo of this process listen at ``address`` alone, not at whatever the machine's name stands for.

    That may be every network's interface, or 127.0.1.1, at which no other machine finds it. Where the interface is not
    known this does nothing.
    """
    if name := interface_of(address):
        os.putenv("GLOO_SOCKET_IFNAME", name)  # read by torch's C++ when a group is made


def interface_of(address: str) -> str:
    """The network interface with this address, which gloo wants by its name; empty where none has it."""
    if address.startswith("127."):
        return LOOPBACK.get(sys.platform, "")
    found = psutil.net_if_addrs().items()
    return next((name for name, rows in found if any(row.address == address for row in rows)), "")
