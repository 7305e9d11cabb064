"""A server that answers from a script, for the tests of what goes over the line itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY = bytes(range(256)) * 300  # several pieces


class Script:
    """Answers in turn; the last one again and again. Each: status, headers, body, and how much of it is sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes, int | None]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.address = ""

    def say(self, status: int = 200, body: bytes = BODY, sent: int | None = None, **headers: str) -> None:
        self.answers.append((status, {k.replace("_", "-"): v for k, v in headers.items()}, body, sent))


@contextmanager
def serving() -> Iterator[Script]:
    told = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests.append((self.path, dict(self.headers)))
            status, headers, body, sent = told.answers[min(len(told.requests), len(told.answers)) - 1]
            self.send_response_only(status)
            if "Content-Length" not in headers and headers.pop("No-Length", None) is None:
                self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:sent])
            self.close_connection = True

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    told.address = f"http://127.0.0.1:{server.server_port}/clip.mp4?signature=secret"
    yield told
    server.shutdown()
    server.server_close()
