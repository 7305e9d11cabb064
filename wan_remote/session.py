"""What one run of a job works with, put together once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from .clock import Clock
from .endpoints import base_url, is_loopback
from .journal import Journal
from .keys import Keys
from .providers import PROVIDERS, Provider
from .secret import Secret
from .transport import Api
from .watch import Watch


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where things are kept.

    Attributes:
        state: the journal and the list of uploads.
        output: the videos, below a folder a cloud.
    """

    state: Path
    output: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A cloud, a key, folders, and a way to talk to the outside."""

    provider: Provider
    api: Api
    folders: Folders
    journal: Journal
    watch: Watch = field(default_factory=Watch)
    clock: Clock = field(default_factory=Clock)
    began: int = field(default_factory=time.time_ns)  # nanoseconds since 1970, for the order of jobs that wait
    organisation: str = ""  # or whatever else sets accounts of one key apart

    @property
    def secret(self) -> Secret:
        return self.api.secret

    @property
    def scope(self) -> str:
        """Tells accounts apart: by key, and by organisation and address where those are set. 8 hexadecimal digits."""
        base = "" if self.api.base == self.provider.base else self.api.base
        if not base and not self.organisation:
            return self.secret.scope
        return sha256(f"{self.secret.scope} {self.organisation} {base}".encode()).hexdigest()[:8]

    @property
    def line(self) -> Path:
        """Where jobs of this account stand in line; see :mod:`wan_remote.line`."""
        return self.folders.state / "line" / f"{self.provider.name}-{self.scope}"

    @property
    def allow_loopback(self) -> bool:
        """Files may lie on this machine only if the cloud does."""
        return is_loopback(self.api.base)


def open_session(
    provider: str, *, folders: Folders, watch: Watch | None = None, clock: Clock | None = None, keys: Keys | None = None
) -> Session:
    """Find key and address of a cloud.

    Raises:
        KeyMissing, KeyInvalid: no usable key.
        InvalidRequest: an address from the environment that can't be used.
    """
    keys, clock, cloud = keys or Keys(), clock or Clock(), PROVIDERS[provider]
    secret, headers = keys.resolve(provider), cloud.headers(keys.environ)
    return Session(
        provider=cloud,
        api=Api(base_url(cloud.base_variable, cloud.base, keys.environ), secret, headers),
        folders=folders,
        journal=Journal(folder=folders.state / "jobs", clock=clock),
        watch=watch or Watch(),
        clock=clock,
        organisation=" ".join(headers.values()),
    )
