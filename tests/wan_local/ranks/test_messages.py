"""What goes over the pipe comes out equal, and nothing but data can come out."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass

import pytest
import torch

from wan_local.errors import InputError
from wan_local.ranks.messages import MAX_HEADER, Channel, decode, encode


def travelled(value):
    header, buffers = encode(value)
    return decode(header, [bytearray(buffer) for buffer in buffers])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -3,
        1 << 70,
        0.1,
        1e300,
        "",
        "Zürich \n\x00",
        b"",
        b"\x00\xff",
        [],
        (),
        {},
        [[1], (2, {"a": [None]})],
    ],
    ids=repr,
)
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    back = travelled(value)
    assert back == value
    assert type(back) is type(value)


def test_numbers_that_json_does_not_know():
    assert travelled(float("inf")) == float("inf")
    assert travelled(float("nan")) != travelled(float("nan"))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool],
    ids=str,
)
def test_tensors_come_back_bit_by_bit(dtype, shape):
    tensor = (torch.arange(24.0)[: torch.Size(shape).numel()].reshape(shape) / 7).to(dtype)
    back = travelled({"x": [tensor]})["x"][0]
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_views_gradients_and_writing():
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    back = travelled(base.t()[1:])
    assert torch.equal(back, base.detach().t()[1:])
    back.fill_(0)
    assert float(base.sum().detach()) == 66


def test_a_dataclass_arrives_as_a_dict():
    @dataclass(frozen=True)
    class Split:
        cfg: int
        sizes: tuple[int, ...]

    assert travelled([Split(2, (1, 2))]) == [{"cfg": 2, "sizes": (1, 2)}]


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, {3}, len, torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")],
    ids=["object", "whole number as a key", "set", "function", "sparse", "meta"],
)
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(InputError, match="rank") as caught:
        encode(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[1]",
        b"[]",
        b'["tensor",9,"float32",[1]]',
        b'["tensor",0,"load",[4]]',
        b'["tensor",0,"float32",[9]]',
    ],
)
def test_nonsense_is_refused(header):
    with pytest.raises(InputError, match="not a message"):
        decode(header, [bytearray(4)])


def test_no_text_of_a_message_names_code():
    """The kinds are these five; a message can't ask for a class or a function."""
    for kind in ("reduce", "global", "object", "eval"):
        with pytest.raises(InputError, match="unknown kind"):
            decode(json.dumps([kind, "os.system", "true"]).encode(), [])


def pipes():
    (a, b), (c, d) = os.pipe(), os.pipe()
    return Channel(os.fdopen(a, "rb", buffering=0), os.fdopen(d, "wb", buffering=0)), Channel(
        os.fdopen(c, "rb", buffering=0), os.fdopen(b, "wb", buffering=0)
    )


def test_messages_keep_their_borders_whoever_sends_at_once():
    """Several threads send blocks larger than a pipe holds; each arrives whole."""
    near, far = pipes()
    senders = [
        threading.Thread(target=near.send, args=(bytes([i]), [bytes([i]) * 300_000, b"", bytes([i]) * 7]))
        for i in range(6)
    ]
    for sender in senders:
        sender.start()
    seen = set()
    for _ in senders:
        header, (large, empty, small) = far.receive()
        assert (set(large), bytes(empty), len(large)) == ({header[0]}, b"", 300_000)
        assert bytes(small) == header * 7
        seen.add(header)
    assert len(seen) == 6
    near.close_writer()
    with pytest.raises(EOFError):
        far.receive()


def test_a_damaged_length_is_not_believed():
    reader, writer = os.pipe()
    os.write(writer, (MAX_HEADER + 1).to_bytes(8, "little") + bytes(8))
    with os.fdopen(reader, "rb", buffering=0) as near, os.fdopen(writer, "wb", buffering=0) as far:
        with pytest.raises(OSError, match="not one of ours"):
            Channel(near, far).receive()
