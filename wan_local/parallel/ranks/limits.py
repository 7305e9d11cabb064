"""How long anything about ranks may take. No wait is without an end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import InputError

STEP_VARIABLE = "WAN_FLF2V_STEP_LIMIT"  # read by whoever drives the ranks; this library reads no environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """All in seconds, but ``slack``.

    A dead or frozen rank is found long before: limits of calls are for ranks that are there and never come to an end.

    Attributes:
        start: until every rank has answered for the first time (Python and torch imported; Ray joined and placed).
        join: until the ranks have found each other.
        load: until every rank has built its object; 30 GB from a slow disk take their time.
        call: one call, unless the call names another limit.
        first: the first call of a method: kernels are compiled, weights come from the disk.
        slack: later calls of a method may also take so many times its longest one until then; 1 stretches nothing.
        silence: a rank that gives no sign of life for so long is frozen, whatever the call's limit is.
        stop: after the user's stop, how long to wait for the call under way to end by itself.
        abandon: after that the group is left to finish the stopped call in the background; ended if it takes longer.
        close: until the processes are gone.
    """

    start: float = 120.0
    join: float = 120.0
    load: float = 1800.0
    call: float = 600.0
    first: float = 3600.0
    slack: float = 5.0
    silence: float = 60.0
    stop: float = 1.0
    abandon: float = 120.0
    close: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"limit {name}={value!r}; use a number of seconds above 0")

    def of_call(self, longest: float | None) -> float:
        """Of a call whose caller names none; ``longest``: that a call of this method has taken, None at the first."""
        return max(self.first, self.call) if longest is None else max(self.call, self.slack * longest)

    @property
    def patience(self) -> float:
        """Of one collective: a rank may wait for another one as long as anything may take."""
        return max(self.call, self.first, self.load)


def step_limit(given: str | float | None = None) -> Limits:
    """The limits with what a person says about a step: seconds that the first and every other one may take.

    Args:
        given: the value of ``WAN_FLF2V_STEP_LIMIT``; empty or None leaves the defaults, which follow what steps take.

    Raises:
        InputError: not a number of seconds above 0.
    """
    if given is None or given == "":
        return Limits()
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{STEP_VARIABLE}={str(given)!r} can't be used; give seconds above 0, such as 3600")
    return Limits(call=seconds, first=seconds, slack=1.0)
