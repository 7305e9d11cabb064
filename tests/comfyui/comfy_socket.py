"""A WebSocket client for tests: one connection to a local server, text and binary messages in, nothing out.

RFC 6455, as much of it as a ComfyUI server on this machine sends: no extensions, fragments joined, pings
answered.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import time

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FINAL, MASKED = 0x80, 0x80


class Disconnected(ConnectionError):
    """The server closed the connection."""


class WebSocket:
    """Connect to ``ws://127.0.0.1:port/path``; use as a context manager."""

    def __init__(self, port: int, path: str, timeout: float = 30.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._buffer = b""
        self._deadline = time.monotonic() + timeout
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(f"no WebSocket at {path}: {head[:80]!r}")

    def receive(self, timeout: float) -> str | bytes:
        """The next message: str for text, bytes for binary. Raises TimeoutError, or Disconnected.

        The seconds are those of the whole message, whatever pings and parts come meanwhile.
        """
        self._deadline = time.monotonic() + timeout
        kind, parts = TEXT, []
        while True:
            opcode, final, payload = self._frame()
            if opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                raise Disconnected("the server closed the WebSocket")
            elif opcode in (TEXT, BINARY, CONTINUATION):
                kind = kind if opcode == CONTINUATION else opcode
                parts.append(payload)
                if final:
                    message = b"".join(parts)
                    return message.decode() if kind == TEXT else message

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _frame(self) -> tuple[int, bool, bytes]:
        first, second = self._take(2)
        size = second & ~MASKED
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return first & 0x0F, bool(first & FINAL), self._take(size)

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._socket.sendall(bytes([FINAL | opcode, MASKED | len(payload)]) + mask + body)  # control frames: <= 125

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server sent no whole message in time")
        self._socket.settimeout(left)
        data = self._socket.recv(1 << 16)
        if not data:
            raise Disconnected("the server closed the connection")
        self._buffer += data
