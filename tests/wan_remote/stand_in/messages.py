"""What goes in and out of the endpoints."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    port: str  # "api" or "storage"
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names
    body: bytes = b""
    raw_path: str = ""
    proxied: bool = False  # the client sent it as to a proxy

    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8"))

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    def describe(self) -> dict[str, Any]:
        """For the record: the body as JSON where it is JSON, else its size and hash alone."""
        told: dict[str, Any] = {
            "port": self.port,
            "method": self.method,
            "path": self.path,
            "raw_path": self.raw_path,
            "query": self.query,
            "proxied": self.proxied,
            "headers": dict(self.headers),
            "size": len(self.body),
            "sha256": hashlib.sha256(self.body).hexdigest(),
        }
        if self.content_type == "application/json":
            try:
                told["json"] = self.json()
            except ValueError:
                told["json"] = None
        return told


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        told = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **told})


class Refused(Exception):
    """An endpoint refuses a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def decode_base64(text: str) -> bytes:
    """Strict: no line breaks, no prefix, right padding."""
    return base64.b64decode(text, validate=True)
