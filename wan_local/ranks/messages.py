"""How arguments and results travel: JSON for the structure, raw bytes for the tensors.

    header   UTF-8 JSON; a scalar stands for itself, anything else is a list that begins with its kind:
             ["list", ...]  ["tuple", ...]  ["dict", {...}]  ["tensor", i, dtype, shape]  ["bytes", i]
    buffers  the i-th raw block, little endian as torch holds it
    frame    header length and number of buffers, the length of each buffer, then the bytes; all lengths little
             endian, 64 bit

No pickle: reading a message can create these kinds of value and nothing else. A bfloat16 tensor is sent as its
bytes like any other (numpy has no such type). Tensors arrive on the CPU, writable and contiguous.

Messages go over a pair of pipes between the driver and a process that it has started. A pipe rather than a socket:
nobody else on the machine can connect to it, so there is no port and no secret, and its other end closes by itself
however the driver dies.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import InputError

MAX_HEADER = 1 << 26  # 64 MiB: a header is structure only
MAX_BUFFERS = 1 << 16

Header = bytes
Buffer = bytes | bytearray | memoryview
Fields = dict[str, Any]
"""A message or a part of one: names to values of the kinds above."""


def encode(value: object) -> tuple[Header, list[Buffer]]:
    """``value`` as a header and its raw blocks.

    Args:
        value: None, bool, int, float, str, bytes, tensors, and lists, tuples, dicts with text keys and dataclasses
            of them. A dataclass arrives as a dict.

    Raises:
        InputError: a value of another type, or a tensor that is not dense; says which.
    """
    buffers: list[Buffer] = []
    return json.dumps(_pack(value, buffers), separators=(",", ":")).encode(), buffers


def decode(header: Header, buffers: Sequence[Buffer]) -> Any:
    """The value :func:`encode` was given. Tensors share memory with ``buffers``.

    Raises:
        InputError: not a message of this format.
    """
    try:
        return _unpack(json.loads(bytes(header)), buffers)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise InputError(f"not a message between ranks: {type(error).__name__}: {error}") from error


def _pack(value: object, buffers: list[Buffer]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, *(_pack(item, buffers) for item in value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"a dict for a rank has the key {key!r}; use text keys")
        return ["dict", {key: _pack(item, buffers) for key, item in value.items()}]
    if isinstance(value, bytes | bytearray | memoryview):
        buffers.append(value)
        return ["bytes", len(buffers) - 1]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _pack(fields, buffers)
    return _pack_tensor(value, buffers)


def _pack_tensor(value: object, buffers: list[Buffer]) -> list[object]:
    import torch  # late: the process that only passes messages on needs no torch

    if not isinstance(value, torch.Tensor):
        raise InputError(f"{type(value).__name__} can't be sent to a rank; send tensors, numbers, text, lists, dicts")
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise InputError(f"a tensor of layout {value.layout} on {value.device} can't be sent to a rank; make it dense")
    plain = value.detach().cpu().reshape(-1)
    raw: Any = plain.view(torch.uint8).numpy() if plain.numel() else b""
    buffers.append(memoryview(raw))
    return ["tensor", len(buffers) - 1, str(value.dtype).removeprefix("torch."), list(value.shape)]


def _unpack(node: Any, buffers: Sequence[Buffer]) -> Any:
    if not isinstance(node, list):
        if isinstance(node, dict):
            raise ValueError("a dict without its kind")
        return node
    kind, rest = node[0], node[1:]
    if kind == "list":
        return [_unpack(item, buffers) for item in rest]
    if kind == "tuple":
        return tuple(_unpack(item, buffers) for item in rest)
    if kind == "dict":
        return {key: _unpack(item, buffers) for key, item in rest[0].items()}
    if kind == "bytes":
        return bytes(buffers[rest[0]])
    if kind == "tensor":
        return _unpack_tensor(buffers[rest[0]], rest[1], rest[2])
    raise ValueError(f"unknown kind {kind!r}")


def _unpack_tensor(raw: Buffer, name: str, shape: list[int]) -> object:
    import torch

    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {name!r}")
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).reshape(shape)


class Channel:
    """One end. ``send`` may be called from several threads, ``receive`` from one."""

    def __init__(self, reader: io.RawIOBase, writer: io.RawIOBase) -> None:
        self._reader, self._writer = reader, writer
        self._sending = threading.Lock()

    def send(self, header: Header, buffers: Sequence[Buffer] = ()) -> None:
        """Write one message; blocks while the other end does not read. Raises OSError when it is gone."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        sizes = struct.pack(f"<{2 + len(views)}Q", len(header), len(views), *(len(view) for view in views))
        with self._sending:
            self._write(memoryview(sizes + header))
            for view in views:
                self._write(view)

    def receive(self) -> tuple[Header, list[bytearray]]:
        """The next message. Raises EOFError when the other end is gone, OSError on nonsense."""
        length, count = struct.unpack("<2Q", self._read(16))
        if length > MAX_HEADER or count > MAX_BUFFERS:
            raise OSError(f"a message with a header of {length} bytes and {count} buffers is not one of ours")
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        return bytes(self._read(length)), [self._read(size) for size in sizes]

    def close_writer(self) -> None:
        """Let the other end know that nothing more will come."""
        try:
            self._writer.close()
        except OSError:
            pass  # it is gone already, which is what we wanted

    def close_reader(self) -> None:
        """Nothing more will be read."""
        self._reader.close()

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._writer.write(view) :]

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._reader.readinto(view)
            if not got:
                raise EOFError("the other end is gone")
            view = view[got:]
        return data


def to_the_driver() -> Channel:
    """The started process's end: takes standard input and output for itself.

    What the process or a library prints goes to standard error from now on, and reading standard input gives
    nothing: neither can damage a message.
    """
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "wb", buffering=0))
