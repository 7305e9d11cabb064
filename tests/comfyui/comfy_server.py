"""A real ComfyUI server for tests: found, started with a base directory of its own, spoken to, stopped.

``COMFYUI_PATH`` names the checkout (default: where comfy-cli installs), ``COMFYUI_PYTHON`` the interpreter
(default: the checkout's own virtual environment, else this one). ``COMFYUI_FRONTEND`` names the ``static`` folder of
another release of comfyui-frontend-package for the editor (default: the one that is installed there).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from comfy_socket import WebSocket

PACK = Path(__file__).resolve().parents[2]
DEFAULT_CHECKOUT = Path.home() / "comfy" / "ComfyUI"
# Bounds in seconds: what takes a minute on a busy machine may take three, a hang may not take a quarter of an hour.
START_TIMEOUT = 180.0  # importing torch and all of ComfyUI
RUN_TIMEOUT = 180.0
INSIDE_TIMEOUT = 560.0  # all checks of a file: 200 s of one core in ComfyUI 0.33.0, 46 of them a compiler's
LOOK_TIMEOUT = 60.0  # starting a Python
TEXT_MESSAGE = 3  # of the binary messages, the kind with a line for a node
# Looks for them without the half minute that importing them can take.
NEEDED = """import importlib.util as packages
assert all(map(packages.find_spec, ("aiohttp", "av", "safetensors", "torch", "transformers", "yaml")))"""


def checkout() -> Path:
    return Path(os.environ.get("COMFYUI_PATH") or DEFAULT_CHECKOUT).expanduser()


def why_not() -> str | None:
    """Why no ComfyUI can be tested here, in one line, or None. One named but unusable fails instead."""
    if (checkout() / "main.py").is_file() or os.environ.get("COMFYUI_PATH"):
        return None
    return f"no ComfyUI checkout at {checkout()}; clone one there or set COMFYUI_PATH"


@cache
def interpreter(comfyui: Path) -> str:
    """The Python that has what ComfyUI needs.

    Raises:
        RuntimeError: none has; says which were tried.
    """
    named = os.environ.get("COMFYUI_PYTHON")
    tail = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    folders = [comfyui / ".venv", comfyui / "venv", comfyui.parent / ".venv", comfyui.parent / "venv"]
    found = [str(Path(folder, *tail)) for folder in folders if Path(folder, *tail).exists()]
    candidates = [named] if named else [*found, sys.executable]
    for python in candidates:
        look = subprocess.run([python, "-c", NEEDED], capture_output=True, check=False, timeout=LOOK_TIMEOUT)  # noqa: S603
        if look.returncode == 0:
            return python
    raise RuntimeError(f"no Python with ComfyUI's requirements among {candidates}; set COMFYUI_PYTHON")


def inside(script: Path) -> dict[str, list[str | None]]:
    """What a script of checks says of each of them, run by ComfyUI's own interpreter without a server: why it failed,
    if it did, and what it measured."""
    command = [interpreter(checkout()), str(script), str(checkout()), str(PACK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSIDE_TIMEOUT)  # noqa: S603
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, list[str | None]] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass
class Run:
    """What became of one queued prompt.

    Attributes:
        status: "success", "error" or "interrupted".
        events: (seconds since queueing, type, data) of every message about this prompt.
        previews: binary messages, previews and texts.
        outputs: node id to what its ui says, as in the history.
    """

    prompt_id: str
    status: str = ""
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for _, name, data in self.events if name == kind]

    @property
    def images(self) -> list[bytes]:
        """The previews with a JPEG in them."""
        return [message for message in self.previews if b"\xff\xd8" in message]

    def texts(self, node: str) -> list[str]:
        """The lines that stood on a node, one after the other."""
        found = []
        for message in self.previews:
            kind, length = struct.unpack(">II", message[:8])
            if kind == TEXT_MESSAGE and message[8 : 8 + length].decode() == node:
                found.append(message[8 + length :].decode())
        return found

    @property
    def error(self) -> str:
        return "; ".join(str(data.get("exception_message")) for data in self.of("execution_error"))

    @property
    def cached(self) -> set[str]:
        return {node for data in self.of("execution_cached") for node in data["nodes"]}


class ComfyServer:
    """One server process with its own folders below ``base``; use as a context manager."""

    def __init__(self, base: Path, arguments: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self.comfyui = checkout()
        self.base = base
        self.port = free_port()
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._log = base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def start(self) -> None:
        """Also after :meth:`stop` or :meth:`kill`: the same folders, address and log."""
        for name in ("custom_nodes", "input", "output", "temp", "user", "models/diffusers"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        link = self.base / "custom_nodes" / "ComfyUI-WanFLF2V"
        if not link.exists():
            link.symlink_to(PACK, target_is_directory=True)
        command = [interpreter(self.comfyui), "main.py", "--cpu", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-auto-launch", *self._arguments]
        if frontend := os.environ.get("COMFYUI_FRONTEND"):
            command += ["--front-end-root", frontend]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= self._environment
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, cwd=self.comfyui, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        return self._call(path)[1]

    def get_text(self, path: str) -> str:
        return self.get_bytes(path).decode()

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content

    def queue(self, prompt: dict[str, Any], **extra: Any) -> tuple[int, dict[str, Any]]:
        """POST /prompt: HTTP status and answer."""
        return self._call("/prompt", {"prompt": prompt, **extra})

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        return self._call(path, body)

    def free(self, done: Callable[[], bool], **wishes: bool) -> None:
        """Ask for models or memory back, every second until it is ``done``, for 30 s at most: a wish that comes
        after the host has looked for one and before it sleeps (it collects garbage then) waits for the next run."""
        deadline = time.monotonic() + 30
        while not done() and time.monotonic() < deadline:
            self.post("/free", wishes)
            asked = time.monotonic()
            while not done() and time.monotonic() - asked < 1:
                time.sleep(0.05)

    def kill(self, how: int) -> None:
        """Send the process a signal and wait for its end."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def run(
        self,
        prompt: dict[str, Any],
        on_event: Callable[[Run, str, dict[str, Any]], None] = lambda run, kind, data: None,
        timeout: float = RUN_TIMEOUT,
        **extra: Any,
    ) -> Run:
        """Queue ``prompt`` and follow it to its end over the WebSocket.

        Raises:
            TimeoutError: it has not ended by then; it is stopped, so that nothing else waits for it.
        """
        client, deadline = uuid.uuid4().hex, time.monotonic() + timeout
        with WebSocket(self.port, f"/ws?clientId={client}") as messages:
            status, answer = self.queue(prompt, client_id=client, **extra)
            if status != 200:
                raise AssertionError(f"POST /prompt was refused ({status}): {answer}")
            run, started = Run(answer["prompt_id"]), time.monotonic()
            while not run.status:
                try:
                    message = messages.receive(deadline - time.monotonic())
                except TimeoutError:
                    self.interrupt()
                    raise TimeoutError(f"no end in {timeout:.0f} s; the last message was {run.events[-1:]}") from None
                if isinstance(message, bytes):
                    run.previews.append(message)
                    continue
                event = json.loads(message)
                kind, data = event["type"], event.get("data") or {}
                if data.get("prompt_id", run.prompt_id) != run.prompt_id:
                    continue
                run.events.append((time.monotonic() - started, kind, data))
                on_event(run, kind, data)
                run.status = outcome(kind)
        history = self._history(run.prompt_id, deadline)
        run.outputs = history.get("outputs", {})
        return run

    def _history(self, prompt_id: str, deadline: float) -> dict[str, Any]:
        """The server writes the history just after it says that it is done."""
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.05)
        raise TimeoutError(f"{prompt_id} never came to the history")

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        assert self._process is not None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self._process.returncode}:\n{self.log()[-4000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.25)
        raise TimeoutError(f"ComfyUI did not come up in {START_TIMEOUT:.0f} s:\n{self.log()[-4000:]}")

    def _call(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                content = answer.read()
                return answer.status, json.loads(content) if content else {}
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")


def outcome(kind: str) -> str:
    """The end that a message stands for, or "" while the prompt runs."""
    ends = {
        "execution_success": "success",
        "execution_error": "error",
        "execution_interrupted": "interrupted",
    }
    return ends.get(kind, "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
