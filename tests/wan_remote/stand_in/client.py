"""The handle of a test on the stand-in: starts its process, scripts its faults, reads its records."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GMI_KEY = "gmi-key-3f9a7c51e8d24b60"
WAVESPEED_KEY = "ws-key-b71d05e2a94c4f83"
GMI, WAVESPEED = "gmi", "wavespeed"


class StandIn:
    def __enter__(self) -> StandIn:
        command = [sys.executable, str(Path(__file__).with_name("__main__.py")), "--port", "0"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.ports: dict[str, int] = json.loads(self.process.stdout.readline())
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak to this instead of to the clouds."""
        return {
            "GMI_BASE_URL": self.gmi,
            "WAVESPEED_BASE_URL": self.wavespeed,
            "GMI_API_KEY": GMI_KEY,
            "WAVESPEED_API_KEY": WAVESPEED_KEY,
        }

    @property
    def gmi(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    @property
    def wavespeed(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}/api/v3"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self.ports['storage']}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["api"], timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def control(self, **commands: Any) -> Any:
        return self._ask("POST", "/_control", commands)

    def reset(self) -> None:
        self.control(reset=True)

    def settings(self, **values: Any) -> None:
        self.control(set=values)

    def faults(self, route: str, *script: dict[str, Any]) -> None:
        self.control(faults={route: list(script)})

    def plan(self, provider: str, *steps: Any, **more: Any) -> None:
        """The states the next job of this cloud goes through, one per read of its record."""
        self.control(plans={provider: [{"steps": list(steps), **more}]})

    def always(self, provider: str, *steps: Any, **more: Any) -> None:
        self.control(always={provider: {"steps": list(steps), **more}})

    def tls(self) -> int:
        return int(self.control(tls=True)["port"])

    def view(self, full: bool = False) -> dict[str, Any]:
        return self._ask("GET", "/_control?full" if full else "/_control")

    def records(self, route: str = "", full: bool = False) -> list[dict[str, Any]]:
        found = self.view(full)["records"]
        return [record for record in found if not route or record["route"] == route]

    def jobs(self, full: bool = False) -> list[dict[str, Any]]:
        return self.view(full)["jobs"]

    def posts(self, provider: str = "") -> int:
        """Submissions that reached the cloud, whatever it answered."""
        return len([r for r in self.records() if r["route"].endswith(".submit") and r["route"].startswith(provider)])

    def accepted(self, provider: str = "") -> int:
        """Submissions that made a job: what would be billed."""
        return len([job for job in self.jobs() if job["provider"].startswith(provider)])
