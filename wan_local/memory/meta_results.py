"""What torch's operations give on the meta device, without the Python that it runs to find out.

There torch goes by decompositions written for its compiler: a millisecond each, and 1.5 s for the first in a process,
which imports the compiler and a computer algebra system. Counting the memory of a clip asks for a thousand of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

aten = torch.ops.aten

ELEMENTWISE = {
    aten.add.Tensor, aten.clamp_max.default, aten.clamp_min.default, aten.cos.default, aten.div.Tensor,
    aten.gelu.default, aten.mul.Tensor, aten.neg.default, aten.pow.Tensor_Scalar, aten.reciprocal.default,
    aten.silu.default, aten.sin.default, aten.sub.Tensor,
}  # fmt: skip
IN_PLACE = {
    aten.add_.Tensor, aten.addcmul_.default, aten.clamp_.default, aten.gelu_.default, aten.mul_.Tensor,
    aten.rsqrt_.default, aten.silu_.default,
}  # fmt: skip
WRITTEN_OUT = {aten.mul.out, aten.silu.out}


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)


def quickly(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """The result of an operation on tensors of the meta device; None of one that is not known here, or elsewhere."""
    tensors = list(tensors_in((args, kwargs)))
    if not (all(tensor.is_meta for tensor in tensors) if tensors else kwargs.get("device") == torch.device("meta")):
        return None
    if function in IN_PLACE:
        return args[0]
    if function in WRITTEN_OUT:
        return kwargs["out"]
    if function in ELEMENTWISE:
        return _elementwise(*args)
    made = OTHERS.get(function)
    return None if made is None else made(*args, **kwargs)


def _elementwise(*operands: object) -> Tensor:
    """A tensor in the memory of the operand that has its shape, if one has."""
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    sides = zip_longest(*(tensor.shape[::-1] for tensor in tensors), fillvalue=1)
    shape = [max(side) if min(side) else 0 for side in sides][::-1]
    x, other = tensors[0], operands[1] if len(operands) > 1 else None
    dtype = torch.result_type(x, other) if isinstance(other, Tensor | float | int) else x.dtype
    whole = next((tensor for tensor in tensors if list(tensor.shape) == shape), None)
    return x.new_empty(shape, dtype=dtype) if whole is None else _like(whole, dtype)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In the memory of ``x`` if that has no gaps."""
    if sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1 == x.numel():
        return x.new_empty_strided(x.shape, x.stride(), dtype=dtype)
    return x.new_empty(x.shape, dtype=dtype)


def _of_that_shape(
    x: Tensor, *, dtype: torch.dtype | None = None, memory_format: object = None, **_: object
) -> Tensor | None:
    return _like(x, dtype or x.dtype) if memory_format in (None, torch.preserve_format) else None


def _reduced(
    x: Tensor, dims: Sequence[int], keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor | None:
    if not keepdim or not dims:
        return None
    over = {dim % x.ndim for dim in dims}
    return x.new_empty([1 if dim in over else size for dim, size in enumerate(x.shape)], dtype=dtype or x.dtype)


def _layer_norm(x: Tensor, over: Sequence[int], *_: object) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty(*x.shape[: -len(over)], *[1] * len(over), dtype=torch.float32)
    return _like(x, x.dtype), statistics, x.new_empty(statistics.shape, dtype=torch.float32)


def _repeated(x: Tensor, times: Sequence[int]) -> Tensor:
    shape = [1] * (len(times) - x.ndim) + list(x.shape)
    return x.new_empty([side * count for side, count in zip(shape, times, strict=True)])


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return tensors[0].new_empty(shape)


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = list(tensors[0].shape)
    shape.insert(dim % (len(shape) + 1), len(tensors))
    return tensors[0].new_empty(shape)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: object,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    *_: object,
) -> Tensor | None:
    if transposed:
        return None
    places = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    sides = [(side + 2 * pad - spread * (reach - 1) - 1) // step + 1 for side, reach, step, pad, spread in places]
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    memory = last if x.is_contiguous(memory_format=last) else torch.contiguous_format
    shape = (len(x), len(weight), *sides)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory)


OTHERS: dict[object, Callable[..., object]] = {
    aten.arange.default: lambda end, **kwargs: torch.empty(end, dtype=kwargs.get("dtype"), device="meta"),
    aten.empty_like.default: _of_that_shape,
    aten.ones_like.default: _of_that_shape,
    aten.pow.Scalar: lambda _, x: _like(x, x.dtype),
    aten.polar.default: lambda size, _: _like(size, size.dtype.to_complex()),
    aten.linalg_vector_norm.default: lambda x, _, *rest, **kwargs: _reduced(x, *rest, **kwargs),
    aten.mean.dim: _reduced,
    aten.native_layer_norm.default: _layer_norm,
    aten.addmm.default: lambda _, x, weight: x.new_empty(x.shape[0], weight.shape[1]),
    aten.cat.default: _cat,
    aten.repeat.default: _repeated,
    aten.stack.default: _stack,
    aten.convolution.default: _convolution,
}
