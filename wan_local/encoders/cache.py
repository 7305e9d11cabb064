"""Prompts that were encoded before, kept on disk, so that the text encoder need not be loaded for them.

The released text encoder is 11 GB and says the same about the same text every time. A kept entry is the embeddings of
one prompt without the zeros behind them, in a file named by a hash of everything that decides their values: the
encoder's files, the dtype, the device, the versions of the libraries, the tidied prompt. Files may be deleted at any
time, and any number of processes may share the folder: each is written beside its place and moved there whole, and one
that can't be read is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ..output import replacing
from .text import TextEncoder
from .text_clean import clean

FOLDER = "wan-flf2v-prompts"  # within the folder that is asked for, which may be one that people keep their files in
LIMIT = 256_000_000  # bytes of the entries
FORMAT = "1"  # of an entry; another number makes all entries before it unknown
SUFFIX = ".safetensors"
ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")  # nothing of another name is counted or removed
UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{12}\.safetensors")
SAMPLE, SAMPLES = 1 << 16, 16  # bytes and places looked at in each file of an encoder, beside its beginning
BEGINNING = 1 << 20
ABANDONED = 3600.0  # seconds after which a temporary file belongs to nobody who is alive


class TextCache:
    """A folder of kept embeddings.

    Keys are 64 lowercase hexadecimal digits. Files in the folder that are not named by one are left alone.

    Args:
        folder: made when the first entry is written.
        limit: bytes that the entries may take; those that were used longest ago go first.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int = LIMIT) -> None:
        self.folder, self.limit = Path(folder), limit

    def get(self, key: str) -> Tensor | None:
        """The embeddings ``[text_len, width]`` kept under a key, zero behind the prompt; None if there are none."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            header = _metadata(data)
            rows = safetensors.torch.load(data)["rows"]
            text_len = int(header["text_len"])
            if header["format"] != FORMAT or header["check"] != _check(rows) or len(rows) > text_len or rows.ndim != 2:
                return None
        except Exception:  # missing, cut short, changed, not ours: all the same to us
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used just now
        return torch.cat([rows, rows.new_zeros(text_len - len(rows), rows.shape[1])])

    def put(self, key: str, rows: Tensor) -> None:
        """Keep embeddings ``[text_len, width]``. A folder that can't be written keeps nothing, and that is no error."""
        rows = rows.detach().cpu()
        filled = rows.ne(0).any(dim=1).nonzero()  # NaN is not 0
        short = rows[: int(filled[-1]) + 1 if len(filled) else 0].contiguous()
        metadata = {"format": FORMAT, "text_len": str(len(rows)), "check": _check(short)}
        data = safetensors.torch.save({"rows": short}, metadata)
        if len(data) > self.limit:
            return
        with contextlib.suppress(OSError), replacing(self._path(key)) as temporary:
            temporary.write_bytes(data)
        with contextlib.suppress(OSError):
            self._tidy()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _tidy(self) -> None:
        """Remove what was used longest ago until the rest is within the limit, and what nobody will finish."""
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process was quicker
                status = path.stat()
                if UNFINISHED.fullmatch(path.name):
                    if time.time() - status.st_mtime > ABANDONED:
                        path.unlink()
                elif ENTRY.fullmatch(path.name):
                    entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size


class CachedTextEncoder:
    """A text encoder that is loaded when it meets the first prompt that is not kept.

    Args:
        load: gives the :class:`wan_local.encoders.TextEncoder`; called once at most, and may raise as it will.
        cache: where embeddings are kept.
        identity: of the encoder and everything else that decides them, see :func:`identity`.
        using: what to hold while the encoder works, such as its stay on a device.
    """

    def __init__(
        self,
        load: Callable[[], TextEncoder],
        cache: TextCache,
        identity: str,
        using: Callable[[TextEncoder], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._load, self._cache, self._identity, self._using = load, cache, identity, using
        self._encoder: TextEncoder | None = None

    def encode(self, prompts: list[str]) -> Tensor:
        """As :meth:`wan_local.encoders.TextEncoder.encode`, on the CPU."""
        keys = [self._key(prompt) for prompt in prompts]
        found = {key: self._cache.get(key) for key in keys}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if found[key] is None}
        if missing:
            if self._encoder is None:
                self._encoder = self._load()
            with self._using(self._encoder):
                for key, prompt in missing.items():
                    rows = self._encoder.encode([prompt])[0].cpu()
                    self._cache.put(key, rows)
                    found[key] = rows
        return torch.stack([rows for rows in map(found.get, keys) if rows is not None])

    def _key(self, prompt: str) -> str:
        return _hash(json.dumps([FORMAT, self._identity, clean(prompt)]))


def identity(paths: Iterable[str | os.PathLike[str]], *choices: object) -> str:
    """A short name for files and choices: another one where any of them differs.

    Files are told apart by name, size, time of change, their first megabyte and 16 places more, not read whole.

    Args:
        paths: files, and folders with all that is in them.
        choices: whatever else decides the result, such as dtype and device.

    Raises:
        OSError: a file can't be read.
    """
    parts: list[object] = [str(choice) for choice in choices]
    for path in map(Path, paths):
        for file in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
            status = file.stat()
            name = file.relative_to(path).as_posix() if file != path else file.name
            parts.append([name, status.st_size, status.st_mtime_ns, _sampled(file, status.st_size)])
    return _hash(json.dumps(parts))


def _sampled(file: Path, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        digest.update(opened.read(BEGINNING))
        for place in _places(size):
            opened.seek(place)
            digest.update(opened.read(SAMPLE))
    return digest.hexdigest()


def _places(size: int) -> Iterator[int]:
    """Evenly spread places behind the beginning, the last one at the end of the file."""
    room = size - SAMPLE - BEGINNING
    if room > 0:
        yield from (BEGINNING + room * number // (SAMPLES - 1) for number in range(SAMPLES))
    elif size > BEGINNING:
        yield BEGINNING


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return found


def _check(rows: Tensor) -> str:
    return hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
