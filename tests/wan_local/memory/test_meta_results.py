"""What operations give on the meta device is what torch says that they give there, and on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wan_local.memory import meta_results

aten = torch.ops.aten

HALF, FULL = torch.bfloat16, torch.float32


def rows(*shape: int, dtype: torch.dtype = FULL, last: bool = False, sliced: bool = False) -> Tensor:
    """Ones on a CPU: in order, channels-last, or every second of the first axis."""
    x = torch.ones(shape, dtype=dtype)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return torch.ones(2 * shape[0], *shape[1:], dtype=dtype)[::2] if sliced else x


X = rows(2, 3, 4, 5)
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "add": (aten.add.Tensor, (X, rows(2, 3, 4, 5, dtype=HALF)), {}),
    "add a row": (aten.add.Tensor, (rows(5), X), {}),
    "add a number": (aten.add.Tensor, (rows(2, 3, dtype=HALF), 1.5), {}),
    "clamp": (aten.clamp_min.default, (rows(2, 3, 4, 5, last=True), 1e-12), {}),
    "clamp from above": (aten.clamp_max.default, (X, 2.0), {}),
    "divide": (aten.div.Tensor, (X, 3), {}),
    "mul of both kinds": (aten.mul.Tensor, (rows(4, 1), rows(1, 5)), {}),
    "mul of half": (aten.mul.Tensor, (rows(2, 4, dtype=HALF), rows(2, 1, dtype=HALF)), {}),
    "mul of channels-last": (aten.mul.Tensor, (rows(2, 3, 4, 5, last=True), rows(2, 1, 4, 5, last=True)), {}),
    "pow": (aten.pow.Tensor_Scalar, (X, 2), {}),
    "pow of a number": (aten.pow.Scalar, (10.0, rows(4, dtype=torch.float64)), {}),
    "gelu": (aten.gelu.default, (X,), {"approximate": "tanh"}),
    "sine": (aten.sin.default, (rows(3, dtype=torch.float64),), {}),
    "of a slice": (aten.neg.default, (rows(2, 3, sliced=True),), {}),
    "in place": (aten.mul_.Tensor, (rows(2, 3, dtype=HALF), rows(1, 3)), {}),
    "norm": (aten.linalg_vector_norm.default, (rows(2, 4, dtype=HALF), 2, [-1], True), {"dtype": FULL}),
    "mean": (aten.mean.dim, (X, [-1], True), {}),
    "layer norm": (aten.native_layer_norm.default, (X, [5], None, None, 1e-6), {}),
    "product": (aten.addmm.default, (rows(4), rows(3, 5), rows(5, 4)), {}),
    "cat": (aten.cat.default, ([rows(2, 3), rows(2, 4)], -1), {}),
    "stack": (aten.stack.default, ([rows(2, 3)] * 4, -1), {}),
    "repeat": (aten.repeat.default, (rows(2, 3), [4, 1, 2]), {}),
    "arange": (aten.arange.default, (7,), {"dtype": torch.float64}),
    "empty_like": (aten.empty_like.default, (rows(2, 3, 4, 5, last=True),), {"dtype": HALF}),
    "ones_like": (aten.ones_like.default, (X,), {}),
    "polar": (aten.polar.default, (rows(3, dtype=torch.float64), rows(3, dtype=torch.float64)), {}),
    "convolution": (
        aten.convolution.default,
        (rows(1, 4, 9, 8), rows(6, 4, 3, 3), rows(6), [2, 1], [1, 0], [1, 1], False, [0, 0], 1), {},
    ),
    "convolution over time": (
        aten.convolution.default,
        (rows(2, 4, 5, 6, 7, last=True), rows(6, 4, 3, 1, 1), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1), {},
    ),
}  # fmt: skip


def on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return [on_meta(part) for part in value] if isinstance(value, list) else value


def described(result: Any) -> list[tuple[Any, ...]]:
    parts = result if isinstance(result, tuple) else (result,)
    return [(part.shape, part.dtype, part.stride(), part.untyped_storage().nbytes()) for part in parts]


@pytest.mark.parametrize("case", CASES)
def test_they_are_what_torch_says(case: str) -> None:
    function, args, kwargs = CASES[case]
    made_there = {"device": torch.device("meta")} if case == "arange" else {}
    found = meta_results.quickly(function, [on_meta(value) for value in args], {**kwargs, **made_there})
    assert all(part.is_meta for part in (found if isinstance(found, tuple) else (found,)))
    if "convolution" in case:  # it answers in the memory that it is given, as a GPU's does; torch's not always
        *_, last = found.stride()
        assert (last == 1) is (args[0].stride(-1) == 1)
        args = tuple(value.contiguous() if isinstance(value, Tensor) else value for value in args)
        found = found.contiguous()
    assert described(found) == described(function(*args, **kwargs))


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (aten.mul.Tensor, (X, X), {}),  # of a CPU
        (aten.arange.default, (7,), {}),
        (
            aten.convolution.default,
            (on_meta(rows(1, 4, 9)), on_meta(rows(4, 6, 3)), None, [1], [0], [1], True, [0], 1),
            {},
        ),
        (aten.mean.dim, (on_meta(X), [-1]), {}),
        (aten.empty_like.default, (on_meta(X),), {"memory_format": torch.channels_last}),
        (aten.sort.default, (on_meta(X),), {}),
    ],
)
def test_the_rest_is_left_to_torch(function: Any, args: Any, kwargs: Any) -> None:
    assert meta_results.quickly(function, args, kwargs) is None
