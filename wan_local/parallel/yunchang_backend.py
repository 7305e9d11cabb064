"""The exchange by yunchang, the library behind xDiT's USP, as an alternative to our own; optional (extra ``xdit``).

Only with a kernel of ours: of yunchang's own kernels two return a log-sum-exp of zeros and two round it to the dtype of
the input, and a ring of those gives wrong frames without an error.
"""

from __future__ import annotations

import re
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from ..attention import Attend
from ..errors import InputError
from .collectives import Groups
from .ring import attend_with_lse
from .sequence import ShardedSequence

AT_LEAST = (0, 6, 4)  # the first with a kernel of one's own that imports without CUDA
XFUSER_BROKEN = (0, 5, 0)  # from here on xfuser's ring package wants names that no yunchang has
INSTALL = 'pip install "yunchang>=0.6.4,<0.7"'


def why_not() -> str | None:
    """Why yunchang can't be used here, with what to install; None if it can."""
    try:
        found = version("yunchang")
    except PackageNotFoundError:
        return f"yunchang is not installed; run `{INSTALL}`"
    if _numbers(found) < AT_LEAST:
        return f"yunchang {found} takes no kernel of ours; run `{INSTALL}`"
    return None


def instead_of_xfuser() -> str:
    """What to say to somebody who asks for xfuser: whether its version works at all, and what to use."""
    try:
        found = version("xfuser")
    except PackageNotFoundError:
        return f"xfuser is not used here; what carries its sequence parallel is yunchang: run `{INSTALL}`, use yunchang"
    try:
        carrier = version("yunchang")
    except PackageNotFoundError:
        carrier = "none"
    if _numbers(found) >= XFUSER_BROKEN:
        return (
            f"xfuser {found} can't run its sequence parallel with yunchang {carrier}: it imports names that no "
            "released yunchang has (0.4.5 is the last that works); use yunchang, which carries it, or own"
        )
    return f"xfuser {found} is yunchang {carrier} underneath; use yunchang"


class YunchangSequence(ShardedSequence):
    """As :class:`wan_local.parallel.sequence.ShardedSequence`, with the exchange by yunchang where it can be exact.

    Its ring knows no pieces of different length, so tokens that don't divide go our own way there.
    """

    def __init__(self, groups: Groups) -> None:
        super().__init__(groups)
        if reason := why_not():
            raise InputError(f"backend='yunchang' can't be used here: {reason}")
        import torch.distributed as dist
        from yunchang import LongContextAttention, set_seq_parallel_pg

        degrees = groups.degrees
        set_seq_parallel_pg(degrees.ulysses, degrees.ring, dist.get_rank(), dist.get_world_size())
        self._ring_size, self._shards = degrees.ring, degrees.shards
        self._layer: Any = LongContextAttention(attn_type="ours", attn_processor=self._kernel)
        self._length = 0
        self._whole: Attend | None = None

    def attention(self, attend: Attend, length: int) -> Attend:
        if self._ring_size > 1 and length % self._shards:
            return super().attention(attend, length)
        return partial(self._by_yunchang, attend, length)

    def _by_yunchang(self, attend: Attend, length: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._whole, self._length = attend, length
        return self._layer(q, k, v)

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """``[B, L, N, K]`` and the log-sum-exp ``[B, N, L]`` float32.

        Where all keys are here, padding is cut off, any kernel will do, and nobody reads the log-sum-exp.
        """
        if self._ring_size == 1 and self._whole is not None:
            out = self._whole(q, k[:, : self._length], v[:, : self._length])
            return out, out.new_zeros((out.shape[0], out.shape[2], out.shape[1]), dtype=torch.float32)
        out, lse = attend_with_lse(q, k, v)
        return out, lse[..., 0].transpose(1, 2).contiguous()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
