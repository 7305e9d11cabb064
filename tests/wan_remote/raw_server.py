"""A server without manners: what it does with a connection is a test's own affair, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Raw:
    port: int
    met: threading.Event = field(default_factory=threading.Event)  # somebody has connected
    over: threading.Event = field(default_factory=threading.Event)  # the test has ended

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket, Raw], None], room: int = 0) -> Iterator[Raw]:
    """Serve on a free port; ``room`` bounds the bytes that the system takes before they are read."""
    with socket.socket() as listening:
        if room:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        raw = Raw(listening.getsockname()[1])

        def serve(sock: socket.socket) -> None:
            raw.met.set()
            with sock, contextlib.suppress(OSError):
                talk(sock, raw)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield raw
        finally:
            raw.over.set()


def head(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and what came of its body with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := sock.recv(65536)):
            raise ConnectionError("the client went away")
        data += part
    start, _, rest = data.partition(b"\r\n\r\n")
    return start, rest


def length(start: bytes) -> int:
    """The Content-Length of a request."""
    lines = (line.partition(b":") for line in start.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)


def answering(body: bytes, *headers: str) -> Callable[[socket.socket, Raw], None]:
    """Gives every request the same answer."""

    def talk(sock: socket.socket, raw: Raw) -> None:
        head(sock)
        lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        sock.sendall(body)

    return talk
