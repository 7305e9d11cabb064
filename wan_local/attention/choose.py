"""Which attention kernel to use, and whether to believe it.

Every kernel, torch's own too, is checked once for each device, dtype, head width and length: on the first result that
is asked of it, before that is used. One asked for by name that can't run or fails the check is an error; one that
"auto" picked is replaced by the next best, with a warning in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError, NumericError
from ..free_memory import is_out_of_memory
from . import check, order, sdpa, timing
from .backend import Backend

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Problem = tuple[torch.device, torch.dtype, int, int, int]  # device, dtype, head width, queries, keys

log = logging.getLogger("wan_local.attention")
_verdicts: dict[tuple[str, Problem], bool] = {}  # by the kernel's name; for the life of this process


def choose(name: str = "auto", backends: Mapping[str, Backend] | None = None) -> Attend:
    """The attention function of that name.

    Args:
        name: a backend's name, or "auto" for the best exact one there is for the device of each call.
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
        usable = "flash" in backends and backends["flash"].why_not() is None
        if not usable and not torch.cuda.is_available():
            return sdpa.attend
        return Chosen(lambda device: order.exact(device, backends["flash"]) if usable else order.of_torch(device))
    if name not in backends:
        raise InputError(f"attention={name!r} is not known; use auto or one of {', '.join(backends)}")
    backend = backends[name]
    reason = backend.why_not()
    if reason is not None:
        there = ", ".join(known for known, other in backends.items() if other.why_not() is None)
        raise InputError(f"attention={name!r} can't be used here: {reason}; use auto or one of {there}")
    if backend is sdpa:
        return Chosen(order.of_torch) if torch.cuda.is_available() else sdpa.attend
    return Chosen(lambda _: [backend], by_name=name, approximates=backend.TOLERANCE > sdpa.TOLERANCE)


class Chosen:
    """The best of some kernels that is right, found at the first call of each kind; call it like ``attend``.

    Args:
        candidates: for a device, best first.
        by_name: what the user asked for, if it is the only one: then its failing is an error.
        approximates: whether it is an 8-bit one.
    """

    def __init__(
        self,
        candidates: Callable[[torch.device], Sequence[Backend]],
        *,
        by_name: str | None = None,
        approximates: bool = False,
    ) -> None:
        self._candidates, self._by_name, self.approximates = candidates, by_name, approximates
        self._found: dict[Problem, Backend] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.device.type == "meta" or type(q) is not Tensor:  # nothing is calculated
            return sdpa.attend(q, k, v)
        problem = (q.device, q.dtype, q.shape[3], q.shape[1], k.shape[1])
        known = self._found.get(problem)
        return self._first(problem, q, k, v) if known is None else known.attend(q, k, v)

    @property
    def used(self) -> dict[Problem, str]:
        """Which kernel took which kind of problem so far, by name."""
        return {problem: backend.NAME for problem, backend in self._found.items()}

    def _first(self, problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        candidates, reasons, failed = list(self._candidates(q.device)), [], False
        if order.is_unsettled(q.device):
            candidates = timing.fastest_first(candidates, q, k, v)
        for backend in candidates:
            reason = backend.rejects(q, k)
            if reason is not None:
                reasons.append(reason)
                continue
            failed = True
            if _verdicts.get((backend.NAME, problem)) is False:
                reasons.append(f"{backend.NAME} gave wrong numbers before")
                continue
            out, finding = self._tried(backend, problem, q, k, v)
            if out is not None:
                self._found[problem] = backend
                return out
            _verdicts[backend.NAME, problem] = False
            reasons.append(f"{backend.NAME} {finding}")
            if self._by_name is None:
                log.warning("attention kernel %s %s; another one is used instead", backend.NAME, finding)
            else:
                raise NumericError(f"attention={self._by_name!r} {finding}; use 'auto' or 'sdpa'")
        if self._by_name is not None:
            raise InputError(f"attention={self._by_name!r} can't do this: {'; '.join(reasons)}; use 'auto' or 'sdpa'")
        told = f"no attention kernel can be used for {q.shape[1]} tokens in {q.dtype}: {'; '.join(reasons)}"
        raise NumericError(told) if failed else InputError(told)

    def _tried(self, backend: Backend, problem: Problem, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor | None, str]:
        """Its result if that is right, else what is wrong."""
        try:
            out = backend.attend(q, k, v)
            if (backend.NAME, problem) in _verdicts:
                return out, ""
            error = check.error(out, q, k, v)
        except Exception as failure:  # any failure of a kernel means the same, but for want of memory: do not use it
            if is_out_of_memory(failure):
                raise
            return None, f"failed: {(str(failure).strip() or type(failure).__name__).splitlines()[0]}"
        if error > backend.TOLERANCE:
            size = f"{q.shape[1]} by {k.shape[1]} rows"
            return None, f"is off by {error:.2g} on {q.device} at {size} ({backend.TOLERANCE:.2g} allowed)"
        _verdicts[backend.NAME, problem] = True
        log.info("attention kernel %s: off by %.1e at %d by %d rows", backend.NAME, error, q.shape[1], k.shape[1])
        return out, ""
