"""Which attention kernel to use, and whether to believe it.

A kernel somebody else compiled is checked against sdpa once for each device, dtype and head width, on a small
problem, before its first result is used. One asked for by name that can't run or fails the check is an error;
one that "auto" picked is replaced by sdpa, with a warning in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError, NumericError
from . import sdpa

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
AUTO = ("flash", "sdpa")  # best first; only exact kernels: a quantised one is the user's decision
CHECK_LENGTH = 256
CHECK_HEADS = 2

log = logging.getLogger("wan_local.attention")


class Backend(Protocol):
    """What a backend module gives; see the docstring of this folder."""

    NAME: str
    TOLERANCE: float

    def why_not(self) -> str | None: ...

    def rejects(self, q: Tensor, /) -> str | None: ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor: ...


def choose(name: str = "auto", backends: Mapping[str, Backend] | None = None) -> Attend:
    """The attention function of that name.

    Args:
        name: a backend's name, or "auto" for the best exact one this machine has.
        backends: the table to choose from; None for ``BACKENDS``.

    Returns:
        ``attend(q, k, v)``, all ``[B, L, N, K]`` -> ``[B, L, N, K]``.

    Raises:
        InputError: no such backend, or it can't run here; never another one in its place.
    """
    if backends is None:
        from . import BACKENDS

        backends = BACKENDS
    if name == "auto":
        usable = [backends[known] for known in AUTO if known in backends and backends[known].why_not() is None]
        best = usable[0] if usable else sdpa
        return best.attend if best is sdpa else Checked(best, by_name=False)
    if name not in backends:
        raise InputError(f"attention={name!r} is not known; use auto or one of {', '.join(backends)}")
    backend = backends[name]
    reason = backend.why_not()
    if reason is not None:
        there = ", ".join(known for known, other in backends.items() if other.why_not() is None)
        raise InputError(f"attention={name!r} can't be used here: {reason}; use auto or one of {there}")
    return backend.attend if backend is sdpa else Checked(backend, by_name=True)


def error_against_sdpa(backend: Backend, like: Tensor) -> float:
    """Relative L2 error of ``backend`` against sdpa in float32, on small random tensors like ``like``.

    Returns:
        The error; infinity if the kernel raised or gave NaN.
    """
    shape = (3, 1, CHECK_LENGTH, CHECK_HEADS, like.shape[-1])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))  # own generator: no one's seed moves
    q, k, v = noise.to(like.device, like.dtype)
    with torch.no_grad():
        expected = sdpa.attend(q.float(), k.float(), v.float())
        try:
            got = backend.attend(q, k, v).float()
        except Exception as error:  # any failure of a foreign kernel means the same: do not use it
            log.warning("attention backend %s raised in its self-check: %s", backend.NAME, error)
            return float("inf")
        ratio = ((got - expected).norm() / expected.norm()).item()
    return ratio if ratio == ratio else float("inf")


class Checked:
    """A backend behind its self-check; call it like ``attend``.

    Args:
        backend: the kernel.
        by_name: whether the user asked for it, so that failing is an error rather than a warning.
    """

    def __init__(self, backend: Backend, *, by_name: bool) -> None:
        self.backend = backend
        self.by_name = by_name
        self.verdicts: dict[tuple[torch.device, torch.dtype, int], bool] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        reason = self.backend.rejects(q)
        if reason is None and self.trusted(q):
            return self.backend.attend(q, k, v)
        if reason is not None and self.by_name:
            raise InputError(f"attention={self.backend.NAME!r} can't do this: {reason}; use 'auto' or 'sdpa'")
        return sdpa.attend(q, k, v)

    def trusted(self, q: Tensor) -> bool:
        """Check once for each device, dtype and head width; remember the verdict."""
        key = (q.device, q.dtype, q.shape[-1])
        if key not in self.verdicts:
            error, allowed = error_against_sdpa(self.backend, q), self.backend.TOLERANCE
            if error > allowed:
                self.refuse(f"is off by {error:.2g} of sdpa's result on {q.device} ({allowed:.2g} allowed)")
            self.verdicts[key] = error <= allowed
        return self.verdicts[key]

    def refuse(self, finding: str) -> None:
        if self.by_name:
            raise NumericError(f"attention={self.backend.NAME!r} {finding}; use 'auto' or 'sdpa'")
        log.warning("attention backend %s %s; sdpa is used instead", self.backend.NAME, finding)
