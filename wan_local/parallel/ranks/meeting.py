"""Where the ranks of a group find each other: torch's store, kept from everybody else.

On one machine that is a file in a folder which only this user can enter: there is no port. Over machines it is torch's
server, at the one address by which the ranks know each other, under keys that begin with a secret of the group. Whoever
can reach that port can still disturb the group, or list its keys: torch's server asks nobody who he is.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

PREFIX = "wan-ranks-"
SECRET_BYTES = 16


class Meeting:
    """One rank's side of it."""

    def __init__(self) -> None:
        self._server: Any = None
        self._folder = ""

    def open(self, host: str, world: int, limit: float) -> dict[str, Any]:
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
            number, port = asyncio.run(_listen(host))
        except OSError as error:
            raise RuntimeError(f"{host} is no address of {platform.node()} to listen at: {error}") from None
        options: dict[str, Any] = {
            "host_name": host, "port": port, "world_size": world, "is_master": True, "wait_for_workers": False,
            "timeout": timedelta(seconds=limit), "master_listen_fd": number,  # it alone would listen at every address
        }  # fmt: skip
        try:
            self._server = dist.TCPStore(**options)
        except NotImplementedError:  # torch 2.5: its newer server takes no socket of others
            self._server = dist.TCPStore(**options, use_libuv=False)
        return {"host": host, "port": port}

    def join(self, where: dict[str, Any], world: int, limit: float) -> Any:
        """The store; ``where`` as :meth:`open` told it, with the group's ``secret`` where there is a server."""
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
    """Take the folder of a meeting away, if there is one; also twice, and for several ranks at once."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


async def _listen(host: str) -> tuple[int, int]:
    """A socket that listens at this one address: its file number, which is the caller's to close, and its port."""
    server = await asyncio.start_server(lambda *_: None, host, 0)
    own = server.sockets[0]
    try:
        return os.dup(own.fileno()), own.getsockname()[1]
    finally:
        server.close()
