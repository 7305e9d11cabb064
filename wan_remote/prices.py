"""What clouds publish of their prices: of some day, and no promise. A quote is asked for where a cloud gives one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """A row of a price list.

    Attributes:
        dollars: US dollars a clip.
        when: name of a parameter to the values that it is for.
    """

    dollars: float
    when: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceList:
    """A cloud's list.

    Attributes:
        date: year and month of which it is.
        source: page where it stands.
        rows: the first that fits a clip is its price.
    """

    date: str
    source: str
    rows: tuple[Price, ...]

    def of(self, parameters: Mapping[str, Any]) -> float | None:
        """US dollars of a clip with such parameters; None if the list does not have it."""
        for row in self.rows:
            if all(parameters.get(name) in values for name, values in row.when.items()):
                return row.dollars
        return None
