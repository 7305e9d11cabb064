"""What every attention kernel of this folder gives."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backend(Protocol):
    """What a backend module gives; see the docstring of this folder."""

    @property
    def NAME(self) -> str: ...  # noqa: N802

    @property
    def TOLERANCE(self) -> float: ...  # noqa: N802

    def why_not(self) -> str | None: ...

    def rejects(self, q: Tensor, k: Tensor, /) -> str | None: ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor: ...
