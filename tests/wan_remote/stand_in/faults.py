"""The ways to fail. A fault script of a route is a list of these, used up in order; a route without one works.

kind      what happens
pass      nothing: the request is answered as documented
answer    ``status``, ``headers`` and ``json`` / ``text`` / ``fill`` bytes of filler instead of the documented answer;
          with ``accept`` the request is carried out nevertheless
edit      the documented answer with fields ``put`` (dotted path -> value) or taken away (``drop``)
reset     the connection is reset: ``when`` = before (the body was read), half (of the body was read), after
hold      nothing is read for ``seconds``, then the connection is reset
hang      the request is read, then nothing for ``seconds``, then the connection closes
delay     answered as documented, ``seconds`` late
cut       the answer ends after ``keep`` bytes; ``length`` keeps the Content-Length, else the connection just ends
drip      the answer comes ``step`` bytes at a time, ``seconds`` apart
no_range  the whole file, whatever range was asked for
endless   a chunked body that never ends (up to ``fill`` bytes)
pack      the documented answer, packed with ``text`` = gzip or deflate, whatever was asked for
body      the documented answer with other ``headers`` and body: ``text``, or the clip without index (``cut_moov``)
"""

from __future__ import annotations

import json as codec
from dataclasses import dataclass, field
from typing import Any

from .messages import Answer


@dataclass
class Fault:
    kind: str
    times: int = 1  # 0 or less: for ever
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    text: str | None = None
    fill: int = 0
    accept: bool = False
    put: dict[str, Any] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    when: str = "after"
    seconds: float = 0.0
    keep: int = 0
    length: bool = True
    step: int = 1
    cut_moov: bool = False

    @property
    def carries_out(self) -> bool:
        """Whether the endpoint does its work although the client will not learn of it as documented."""
        if self.kind in ("answer", "reset", "hang"):
            return self.accept and not (self.kind == "reset" and self.when != "after")
        return True

    def own_answer(self) -> Answer:
        if self.json is not None:
            answer = Answer.of(self.json, self.status)
            return Answer(answer.status, answer.body, {**answer.headers, **self.headers})
        body = (self.text or "").encode() if self.text is not None else b"x" * self.fill
        headers = {"Content-Type": "text/html"} if self.text else {}
        return Answer(self.status, body, {**headers, **self.headers})

    def edited(self, answer: Answer) -> Answer:
        value = codec.loads(answer.body)
        for path in self.drop:
            *parents, name = path.split(".")
            target = value
            for parent in parents:
                target = target[parent]
            target.pop(name, None)
        for path, new in self.put.items():
            *parents, name = path.split(".")
            target = value
            for parent in parents:
                target = target[parent]
            target[name] = new
        return Answer.of(value, answer.status)
