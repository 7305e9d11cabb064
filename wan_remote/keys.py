"""API keys: from the environment, else from a file that only its owner can read. Never shown, never in a graph."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .command import pasted, program
from .errors import KeyInvalid, KeyMissing, StorageError
from .key_file import KeyFile, Unreadable
from .locks import held
from .providers import PROVIDERS
from .secret import Secret

FILE = "keys.json"


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
            KeyInvalid: it has characters that no key has, or the file that should hold it can't be read.
        """
        cloud = PROVIDERS[provider]
        variable, site = cloud.key_variable, cloud.site
        value, source = self._of_environment(provider), f"the variable {variable}"
        if not value and self.folder is not None:
            value, source = self._stored(provider), str(self._file.path)
        if not value:
            places = f"the variable {variable}"
            if self.folder is not None:
                form = f'{{"{provider}": "..."}}'
                places += f", or {self._file.path} as {form} ({self._command(provider)} writes it)"
            raise KeyMissing(f"no API key for {provider} is set; make one at {site} and put it into {places}")
        if not _usable(value):
            raise KeyInvalid(f"the key from {source} has characters that no key has; copy it again from {site}")
        return Secret(value, source)

    def environment_rules(self, provider: str) -> bool:
        """Whether the environment has a key for a cloud: one in the file would not be used."""
        return bool(self._of_environment(provider))

    def save(self, provider: str, value: str) -> Path:
        """Write a key into the file, readable by its owner only. What else is in it stays.

        Raises:
            KeyInvalid: not something a key can be.
            StorageError: the folder can't be written, or what is in the file can't be kept.
        """
        value = value.strip()
        if self.folder is None or provider not in PROVIDERS or not value:
            raise KeyInvalid(f"no key for {provider} to store; give one of {', '.join(PROVIDERS)} and its key")
        if not _usable(value):
            site = PROVIDERS[provider].site
            raise KeyInvalid(f"that has spaces, line breaks or other characters that no key has; copy it from {site}")
        file = self._file
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with held(file.path.with_suffix(".lock")):  # another key may be stored at the same time
                file.put({**file.table(), provider: value})
        except Unreadable as error:
            failed = f"can't be read ({error}), so nothing was stored"
        except OSError as error:
            failed = f"can't be written ({error.strerror})"
        else:
            return file.path
        raise StorageError(
            f"{file.path} {failed}; correct or remove it, or use the variable {PROVIDERS[provider].key_variable}"
        )

    def _of_environment(self, provider: str) -> str:
        return (self.environ.get(PROVIDERS[provider].key_variable) or "").strip()

    def _stored(self, provider: str) -> str:
        assert self.folder is not None
        try:
            return self._file.get(provider)
        except Unreadable as error:
            why = str(error)
        form = json.dumps(dict.fromkeys(PROVIDERS, "..."))
        raise KeyInvalid(
            f"{self._file.path} can't be read ({why}); it has to be {form}: correct it, or remove it and run "
            f"{self._command(provider)}"
        )

    @property
    def _file(self) -> KeyFile:
        return KeyFile((self.folder or Path()) / FILE)

    def _command(self, provider: str) -> str:
        """What stores a key without showing it."""
        return f"{program()} keys {provider} --state {pasted([str(self.folder)])}"


def _usable(value: str) -> bool:
    """Whether it may stand in a header."""
    return all("!" <= character <= "~" for character in value)
