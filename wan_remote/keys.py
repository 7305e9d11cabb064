"""API keys: from the environment, else from a file that only its owner can read. Never shown, never in a graph."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from .errors import KeyInvalid, KeyMissing, StorageError

FILE = "keys.json"
WHERE: Mapping[str, tuple[str, str]] = {
    "gmi": ("GMI_API_KEY", "https://console.gmicloud.ai"),
    "wavespeed": ("WAVESPEED_API_KEY", "https://wavespeed.ai/accesskey"),
}
"""Cloud to the variable that holds its key, and where keys are made."""
ORGANISATION = "GMI_ORG_ID"  # for people with several organisations at GMI Cloud


class Secret:
    """A key that does not print itself.

    Attributes:
        source: where it came from, for messages.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The key. Only for the header of a request, and to cut it out of texts."""
        return self._value

    @property
    def scope(self) -> str:
        """Tells accounts apart without telling the key: 8 hexadecimal digits."""
        return sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<key from {self.source}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is not copied or stored")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Where keys are looked for.

    Attributes:
        folder: of the key file; None for no file.
        environ: the environment.
    """

    folder: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def resolve(self, provider: str) -> Secret:
        """The key for a cloud.

        Raises:
            KeyMissing: none is set; says where to get one and where to put it.
            KeyInvalid: it has characters that no key has.
        """
        variable, site = WHERE[provider]
        value, source = (self.environ.get(variable) or "").strip(), f"the variable {variable}"
        if not value and self.folder is not None:
            value, source = self._stored(provider), str(self.folder / FILE)
        if not value:
            places = f"the variable {variable}" + (f", or {self.folder / FILE}" if self.folder else "")
            raise KeyMissing(f"no API key for {provider} is set; make one at {site} and put it into {places}")
        if not all("!" <= character <= "~" for character in value):
            raise KeyInvalid(f"the key from {source} has characters that no key has; copy it again from {site}")
        return Secret(value, source)

    def configured(self, provider: str) -> str | None:
        """Where a key for this cloud is set, or None. Says nothing about the key itself."""
        try:
            return self.resolve(provider).source
        except (KeyMissing, KeyInvalid):
            return None

    @property
    def organisation(self) -> str | None:
        """GMI Cloud's organisation, if one is named."""
        value = (self.environ.get(ORGANISATION) or "").strip()
        if value and not all("!" <= character <= "~" for character in value):
            raise KeyInvalid(f"{ORGANISATION} has characters that no organisation id has; copy it again")
        return value or None

    def save(self, provider: str, value: str) -> Path:
        """Write a key into the file, readable by its owner only.

        Raises:
            KeyInvalid: not something a key can be.
            StorageError: the folder can't be written.
        """
        value = value.strip()
        if self.folder is None or provider not in WHERE or not value:
            raise KeyInvalid(f"no key for {provider} to store; give one of {', '.join(WHERE)} and its key")
        stored = {name: self._stored(name) for name in WHERE} | {provider: value}
        text = json.dumps({name: key for name, key in stored.items() if key})
        path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError as error:
            failed = error.strerror
        else:
            return path
        raise StorageError(f"{path} can't be written ({failed}); free it or use the variable {WHERE[provider][0]}")

    def _stored(self, provider: str) -> str:
        if self.folder is None:
            return ""
        try:
            table = json.loads((self.folder / FILE).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return ""
        value = table.get(provider) if isinstance(table, dict) else None
        return value.strip() if isinstance(value, str) else ""
