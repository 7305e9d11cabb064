"""The HTTP part: two ports (the APIs; the file hosts), routing, faults, and the control endpoint."""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import gmi, storage, wavespeed
from .clips import without_moov
from .faults import Fault
from .messages import Answer, Refused, Request
from .state import State, refusal

ID = r"([^/]+)"
ROUTES: list[tuple[str, str, str, str, Any]] = [  # port, method, path, name, endpoint
    ("api", "POST", "/apikey/requests", "gmi.submit", gmi.submit),
    ("api", "GET", "/apikey/requests", "gmi.list", gmi.listing),
    ("api", "GET", f"/apikey/requests/{ID}", "gmi.status", gmi.status),
    ("api", "GET", "/apikey/models", "gmi.models", gmi.models),
    ("api", "GET", f"/apikey/models/{ID}", "gmi.model", gmi.model),
    ("api", "POST", "/apikey/upload-url", "gmi.upload_url", gmi.upload_url),
    ("api", "POST", "/api/v3/wavespeed-ai/wan-flf2v", "wavespeed.submit", wavespeed.submit),
    ("api", "GET", f"/api/v3/predictions/{ID}/result", "wavespeed.result", wavespeed.result),
    ("api", "GET", f"/api/v3/predictions/{ID}", "wavespeed.result", wavespeed.result),
    ("api", "POST", "/api/v3/predictions", "wavespeed.list", wavespeed.listing),
    ("api", "POST", "/api/v3/predictions/delete", "wavespeed.delete", wavespeed.delete),
    ("api", "POST", "/api/v3/media/upload/binary", "wavespeed.binary", wavespeed.upload_binary),
    ("api", "POST", "/api/v3/media/uploads", "wavespeed.ticket", wavespeed.upload_ticket),
    ("api", "GET", "/api/v3/balance", "wavespeed.balance", wavespeed.balance),
    ("api", "GET", "/api/v3/models", "wavespeed.models", wavespeed.models),
    ("api", "POST", "/api/v3/model/price", "wavespeed.price", wavespeed.price),
    ("api", "POST", "/api/v3/billings/search", "wavespeed.billings", wavespeed.billings),
    ("storage", "GET", r"/files/([^/]+)\.mp4", "file", storage.get_file),
    ("storage", "PUT", f"/put/{ID}", "put", storage.put_file),
    ("storage", "GET", f"/uploads/{ID}", "upload", storage.get_upload),
    ("storage", "GET", r"/thumbnails/([^/]+)\.jpg", "thumbnail", storage.thumbnail),
    ("storage", "GET", "/elsewhere.*", "elsewhere", storage.elsewhere),
    ("storage", "POST", "/elsewhere.*", "elsewhere", storage.elsewhere),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *arguments: Any) -> None:
        """Quiet: the tests read the records instead."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The clouds' clock, not this machine's."""
        return formatdate(self.server.state.now(), usegmt=True)

    def do_GET(self) -> None:
        state: State = self.server.state
        if urlsplit(self.path).path == "/_control":
            return self.control(state)
        request = self.request_head()
        route, endpoint, names = self.route(request)
        fault = state.next_fault(route)
        if fault and (fault.kind == "hold" or (fault.kind == "reset" and fault.when == "before")):
            state.remember(route, request, fault)
            time.sleep(fault.seconds)
            return self.reset()
        request.body = self.read_body(half=bool(fault and fault.kind == "reset" and fault.when == "half"))
        record = state.remember(route, request, fault)
        if request.port == "storage":
            storage.watch(state, request)
        if fault and fault.kind == "no_range":
            request.headers.pop("range", None)
        answer = Answer()
        if fault is None or fault.carries_out:
            answer = self.carry_out(state, route, endpoint, request, names)
        record["accepted"] = route.endswith(".submit") and answer.status == 200 and bool(answer.body)
        record["status"] = answer.status
        self.send(answer, fault)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def request_head(self) -> Request:
        split = urlsplit(self.path)  # a client with a proxy names the whole address
        port = "storage" if split.port == self.server.servers.ports["storage"] else self.server.port_name
        raw = self.path[self.path.index(split.path) :] if split.netloc else self.path
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        return Request(port, self.command, split.path, query, headers, raw_path=raw, proxied=bool(split.netloc))

    def route(self, request: Request) -> tuple[str, Any, list[str]]:
        for port, method, pattern, name, endpoint in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if port == request.port and method == request.method and found:
                return name, endpoint, [unquote(part) for part in found.groups()]
        return f"{request.port} has no {request.method} {request.path}", None, []

    def read_body(self, half: bool) -> bytes:
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(size // 2 if half else size)

    def carry_out(self, state: State, route: str, endpoint: Any, request: Request, names: list[str]) -> Answer:
        provider = "gmi" if request.path.startswith("/apikey") else "wavespeed"
        try:
            if endpoint is None:
                raise Refused(404, "page not found")
            if request.method in ("POST", "PUT") and "content-length" not in request.headers:
                raise Refused(411, "Length Required")
            return endpoint(state, request, *names)
        except Refused as error:
            if request.port == "storage":
                return Answer(error.status, f"<Error>{error.message}</Error>".encode(), {"Content-Type": "text/xml"})
            return refusal(provider, error)

    def send(self, answer: Answer, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        try:
            if fault is None:
                self.write(answer)
            elif kind == "no_range":
                self.write(answer)
            elif kind == "answer":
                self.write(fault.own_answer())
            elif kind == "edit":
                self.write(fault.edited(answer))
            elif kind == "reset":
                self.reset()
            elif kind == "hang":
                time.sleep(fault.seconds)
                self.reset()
            elif kind == "delay":
                time.sleep(fault.seconds)
                self.write(answer)
            elif kind == "pack":
                self.write(packed(answer, str(fault.text)))
            elif kind == "body":
                self.write(self.other_body(answer, fault))
            else:
                self.write_badly(answer, fault)
        except OSError:
            self.close_connection = True  # the client went away

    def other_body(self, answer: Answer, fault: Fault) -> Answer:
        body = answer.body if fault.text is None else fault.text.encode()
        if fault.cut_moov:
            body = without_moov(answer.body)
        headers = {**answer.headers, **fault.headers}
        if body != answer.body:
            headers.pop("x-goog-hash", None)
        return Answer(answer.status, body, {name: value for name, value in headers.items() if value})

    def write(self, answer: Answer) -> None:
        self.head(answer, {"Content-Length": str(len(answer.body))} | answer.headers)
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def head(self, answer: Answer, headers: dict[str, str]) -> None:
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def write_badly(self, answer: Answer, fault: Fault) -> None:
        self.close_connection = True
        headers = dict(answer.headers)
        if fault.kind == "endless":
            self.head(answer, headers | {"Transfer-Encoding": "chunked"})
            block = (answer.body * (1 + 65536 // max(1, len(answer.body))))[:65536]
            for _ in range(max(1, fault.fill // len(block))):
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                if fault.seconds:
                    time.sleep(fault.seconds)
        elif fault.kind == "cut":
            size = {"Content-Length": str(len(answer.body))} if fault.length else {"Connection": "close"}
            self.head(answer, headers | size)
            self.wfile.write(answer.body[: fault.keep])
        elif fault.kind == "drip":
            self.head(answer, headers | {"Content-Length": str(len(answer.body))})
            for at in range(0, len(answer.body), fault.step):
                self.wfile.write(answer.body[at : at + fault.step])
                self.wfile.flush()
                time.sleep(fault.seconds)
        self.wfile.flush()

    def reset(self) -> None:
        """RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            pass  # reset() closed it

    def control(self, state: State) -> None:
        if self.command == "POST":
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = self.server.servers.tls() if body.get("tls") else state.command(body)
        else:
            told = state.view(full="full" in self.path)
        self.write(Answer.of(told))


def packed(answer: Answer, how: str) -> Answer:
    body = gzip.compress(answer.body) if how == "gzip" else zlib.compress(answer.body)
    return Answer(answer.status, body, {**answer.headers, "Content-Encoding": how})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, name: str, state: State, servers: Servers) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.port_name, self.state, self.servers = name, state, servers

    def handle_error(self, *arguments: Any) -> None:
        """A client that went away is no news."""


class Servers:
    def __init__(self, port: int = 0) -> None:
        self.state = State()
        self.api = Server(port, "api", self.state, self)
        self.storage = Server(0, "storage", self.state, self)
        self.ports = {"api": self.api.server_address[1], "storage": self.storage.server_address[1]}
        self.state.ports = self.ports

    def start(self) -> None:
        for server in (self.api, self.storage):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def tls(self) -> dict[str, int]:
        """A third port with a certificate nobody trusts; needs the openssl program."""
        if "tls" not in self.ports:
            server = Server(0, "api", self.state, self)
            with tempfile.TemporaryDirectory() as folder:
                key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
                command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
                command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
                subprocess.run(command, check=True, capture_output=True)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.ports["tls"] = server.server_address[1]
        return {"port": self.ports["tls"]}
