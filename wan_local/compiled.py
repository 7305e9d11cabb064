"""Transformer blocks compiled by torch: what is neither a product nor attention becomes a few fused kernels.

A block is traced through a twin, in which linear layers, attention and the host's own layers are calls that the graph
does not look into. So it is one graph without breaks for all blocks and models of one kind, and whatever is done to a
real layer keeps working without compiling again: packed weights, LoRAs beside it, weights that come from elsewhere for
the time of a call, tokens sharded over GPUs.

Inference only. Read after ``model/blocks.py``.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor, library, nn

from .config import TransformerConfig
from .free_memory import is_out_of_memory
from .model import WanTransformer
from .model.blocks import Block, Context
from .model.nag import Nag
from .notices import tell
from .quantised import layers, shared_inputs

SAME_INPUT = ("self_attn.q", "self_attn.k", "self_attn.v")
TRACED_NORMS = (nn.RMSNorm, nn.LayerNorm, layers.RMSNorm, layers.LayerNorm)  # others bring their weights their own way


def compile_blocks(transformer: WanTransformer) -> None:
    """Have a model's blocks compiled when they are first called, for each size of clip; before they are offloaded.

    Compiling is told by a notice. Where it can't be done, a notice says why, and the model works without.

    Args:
        transformer: :class:`wan_local.model.WanTransformer`.
    """
    transformer.compiled = True
    twin = _twin(transformer.config, transformer.blocks[0])
    for block in transformer.blocks:
        block.forward = _Compiled(block, twin)


class _Running(threading.local):
    """The block that a graph is running for, in this thread."""

    block: Any = None
    context: Any = None
    calls: int = 0
    region: AbstractContextManager[None] | None = None
    left: int = 0


_running = _Running()
_unable: list[str] = []  # why nothing can be compiled in this process, once that is known


class _Compiled:
    """A block's forward through the graph."""

    def __init__(self, block: nn.Module, twin: Block) -> None:
        self._block, self._twin = weakref.ref(block), twin  # a block that held itself would not be freed at once

    def __call__(self, x: Tensor, context: Context) -> Tensor:
        block: Any = self._block()
        if _unable or torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            return type(block).forward(block, x, context)
        for path, module in self._twin.named_modules():
            for name in module._parameters:
                # A copy, small: made here, it is of one kind whether its original lies in a buffer of offload or not.
                value = getattr(block.get_submodule(path), name).clone()
                module._parameters[name] = nn.Parameter(value, requires_grad=False)
        rope = torch.view_as_real(context.rope)
        # A part of the tokens has the batch stride of all of them, which addresses nothing, and would be another graph.
        x = x.reshape(-1).view(x.shape)
        _running.block, _running.context, _running.calls = block, context, 0
        nag = None if context.nag is None else (context.nag.text, context.nag.scale)
        try:
            return _graph()(self._twin, x, context.time, context.text, context.image, rope, context.dtype, nag)
        except Exception as error:
            if _running.calls or is_out_of_memory(error):  # it runs: what failed is no matter of compiling
                raise
            _unable.append(_line(error))
            tell(f"the transformer's blocks can't be compiled here ({_unable[0]}); the run goes on without")
            return type(block).forward(block, x, context)
        finally:
            _leave_region()
            _running.block = _running.context = None


def _run(
    twin: Block, x: Tensor, time: Tensor, text: Tensor, image: Tensor | None, rope: Tensor, dtype: torch.dtype,
    nag: tuple[Tensor, float] | None,
) -> Tensor:  # fmt: skip
    context = Context(
        time=time, text=text, image=image, rope=rope, dtype=dtype, attend=_attend, attend_tokens=_attend_tokens,
        nag=None if nag is None else Nag(text=nag[0], scale=nag[1]),
    )  # fmt: skip
    return Block.forward(twin, x, context)


def _inductor(graph: Any, inputs: Any) -> Any:
    from torch._inductor.compile_fx import compile_fx

    tell("the transformer's blocks are being compiled for clips of this kind: the first step waits for that")
    return compile_fx(graph, inputs)


@cache
def _graph() -> Any:
    return torch.compile(_run, backend=_inductor, fullgraph=True)  # here, since it imports much


# -- calls that the graph does not look into -----------------------------------------------------------------------


@library.custom_op("wan_flf2v::layer", mutates_args=(), schema="(Tensor x, str name, SymInt width) -> Tensor")
def _layer(x: Tensor, name: str, width: int) -> Tensor:
    """A layer of the block that is running."""
    _running.calls += 1
    if name in SAME_INPUT:
        if _running.region is None:
            _running.region, _running.left = shared_inputs(), len(SAME_INPUT)
            _running.region.__enter__()
        _running.left -= 1
    result = _running.block.get_submodule(name)(x)
    if name in SAME_INPUT and not _running.left:
        _leave_region()
    return result.contiguous()


@_layer.register_fake
def _(x: Tensor, name: str, width: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], width))


@library.custom_op(
    "wan_flf2v::attention", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v, bool tokens) -> Tensor"
)
def _attention(q: Tensor, k: Tensor, v: Tensor, tokens: bool) -> Tensor:
    """The attention of the block that is running, of the tokens among themselves or not."""
    context = _running.context
    attend = (context.attend_tokens or context.attend) if tokens else context.attend
    return attend(q, k, v).contiguous()


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, tokens: bool) -> Tensor:
    return q.new_empty(q.shape)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attention(q, k, v, False)


def _attend_tokens(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attention(q, k, v, True)


def _leave_region() -> None:
    region, _running.region = _running.region, None
    if region is not None:
        region.__exit__(None, None, None)


# -- the twin --------------------------------------------------------------------------------------------------------


class _StandIn(nn.Module):
    """A layer that is called in the real block."""

    name: str

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return _layer(x, self.name, self.width)


def _twin(config: TransformerConfig, block: nn.Module) -> Block:
    """A block whose layers stand for those of the real one; its few parameters are put in at each call."""

    def norm(like: nn.Module, dim: int, eps: float) -> nn.Module:
        return type(like)(dim, eps=eps) if type(like) in TRACED_NORMS else _StandIn(dim)

    class StandIns:
        @staticmethod
        def Linear(_: int, width: int) -> nn.Module:  # noqa: N802
            return _StandIn(width)

        @staticmethod
        def RMSNorm(dim: int, eps: float) -> nn.Module:  # noqa: N802
            return norm(block.get_submodule("self_attn.norm_q"), dim, eps)

        @staticmethod
        def LayerNorm(dim: int, eps: float) -> nn.Module:  # noqa: N802
            return norm(block.get_submodule("norm3"), dim, eps)

    layers: Any = StandIns
    with torch.device("meta"):
        twin = Block(config, layers).requires_grad_(False).eval()
    for name, module in twin.named_modules():
        if isinstance(module, _StandIn):
            module.name = name
    return twin


def _line(error: Exception) -> str:
    """What is wrong, in one line: the last cause's first."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
