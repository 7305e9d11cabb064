"""What runs of a model calculate less exactly, on the same socket: what all of its values have in common."""

from __future__ import annotations

import copy
from typing import TypeVar

from ...wan_local.approximations import EXACT, Approximations

Value = TypeVar("Value", bound="Approximated")


class Approximated:
    """A value on a ``WAN_FLF2V_MODEL`` wire; the weights are shared with the value it was made of."""

    approximations: Approximations = EXACT

    def with_approximations(self: Value, chosen: Approximations) -> Value:
        """The same with these in the place of those chosen before."""
        changed = copy.copy(self)
        changed.approximations = chosen
        return changed
