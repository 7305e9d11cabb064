"""LoRAs onto a model the best way its weights allow: merged where that costs nothing, beside them where not.

Merging costs no time a step. But weights that are mapped from their file take no memory of the host until they are
merged into: then they take all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..quantised import packing_of
from .beside import Beside
from .merge import PLAIN, merge
from .read import Lora


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """How one LoRA is used.

    Attributes:
        lora: as read.
        strength: factor on what it changes; 0 is off, negative turns it around.
        first_step: first sampling step it counts in, from 1.
        last_step: last one; None is the end.
        expert: "high" or "low": the one of Wan2.2's experts it is for; None is every model of the run.
    """

    lora: Lora
    strength: float = 1.0
    first_step: int = 1
    last_step: int | None = None
    expert: str | None = None

    @property
    def always(self) -> bool:
        return self.first_step <= 1 and self.last_step is None

    def at(self, step: int) -> float:
        """The strength in a step, from 1."""
        return self.strength if self.first_step <= step <= (self.last_step or step) else 0.0


class Applied:
    """LoRAs on a model, some merged for good and some beside it; see :func:`apply`.

    Attributes:
        merged, beside: how many are used each way.
    """

    def __init__(self, model: nn.Module, uses: Sequence[Use], *, merging: bool = True) -> None:
        plain = [merging and _merges(model, use) for use in uses]
        merged = [use for use, into in zip(uses, plain, strict=True) if into]
        self._scheduled = [use for use, into in zip(uses, plain, strict=True) if not into]
        if merged:
            merge(model, [(use.lora, use.strength) for use in merged])
        self._beside = Beside(model, [(use.lora, use.at(1)) for use in self._scheduled]) if self._scheduled else None
        self.merged, self.beside = len(merged), len(self._scheduled)

    def strengths(self, step: int) -> tuple[float, ...]:
        """Of those that are beside the weights, in a step, from 0."""
        return tuple(use.at(step + 1) for use in self._scheduled)

    def before_step(self, step: int) -> None:
        """Switch those on and off that count in some steps only; ``step`` is from 0."""
        if self._beside is not None:
            self._beside.set_strengths(self.strengths(step))


def apply(model: nn.Module, uses: Sequence[Use], *, merging: bool = True) -> Applied:
    """Put LoRAs on a model, in the order given, those that are merged first.

    Call :meth:`Applied.before_step` in the sampling loop if some count in some steps only.

    Args:
        model: with official parameter names.
        uses: the LoRAs.
        merging: whether to merge what can be; False leaves all weights as they are, mapped ones mapped.
    """
    return Applied(model, uses, merging=merging)


def merged_bytes(model: nn.Module, uses: Sequence[Use]) -> int:
    """Host memory that the weights take which :func:`apply` would merge into; on a device they are there anyway."""
    names = {name for use in uses if _merges(model, use) for name in use.lora.deltas}
    found = (model.get_parameter(name) for name in names)
    return sum(value.numel() * value.element_size() for value in found if value.device.type == "cpu")


def _merges(model: nn.Module, use: Use) -> bool:
    return use.always and _is_plain(model, use.lora)


def _is_plain(model: nn.Module, lora: Lora) -> bool:
    """Whether everything it changes is plain numbers."""
    for name in lora.deltas:
        path, _, leaf = name.rpartition(".")
        layer = model.get_submodule(path)
        packed = leaf == "weight" and packing_of(layer) is not None
        if packed or getattr(layer, leaf).dtype not in PLAIN:
            return False
    return True
