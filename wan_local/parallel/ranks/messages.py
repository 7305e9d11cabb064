"""How arguments and results travel: JSON for the structure, raw bytes for the tensors.

    header   UTF-8 JSON; a scalar stands for itself, anything else is a list that begins with its kind:
             ["list", ...]  ["tuple", ...]  ["dict", {...}]  ["tensor", i, dtype, shape]  ["bytes", i]
    buffers  the i-th raw block, little endian as torch holds it

No pickle: reading a message can create these kinds of value and nothing else. A bfloat16 tensor is sent as its
bytes like any other (numpy has no such type). Tensors arrive on the CPU, writable and contiguous.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from ...errors import InputError

Header = bytes
Buffer = bytes | bytearray | memoryview


def encode(value: Any) -> tuple[Header, list[Buffer]]:
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


def _pack(value: Any, buffers: list[Buffer]) -> Any:
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


def _pack_tensor(value: Any, buffers: list[Buffer]) -> list[Any]:
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


def _unpack_tensor(raw: Buffer, name: str, shape: list[int]) -> Any:
    import torch

    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {name!r}")
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).reshape(shape)
