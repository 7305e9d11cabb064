"""From a number of steps and a shift to the noise levels of a run. Plain Python.

``sigma`` is the share of noise in ``x = (1 - sigma) * x0 + sigma * noise``, from 1 (all noise) to 0; the model is told
the timestep ``1000 * sigma``. Read it before ``loop.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import InputError

TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The noise levels a sampler walks down.

    Attributes:
        sigmas: ``N + 1`` values that fall strictly, the last one 0.
        timesteps: ``N`` values, what the model is told at each step. Two may be equal where they are whole numbers.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)


def shifted(sigma: float, shift: float) -> float:
    """Move a noise level towards 1: ``s * sigma / (1 + (s - 1) * sigma)`` (Esser et al. 2024, section 5.3.2)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def make_schedule(num_steps: int, shift: float, *, highest: float = 1.0, whole_timesteps: bool) -> Schedule:
    """Evenly spaced noise levels from ``highest`` to 0, shifted once.

    Args:
        num_steps: ``N``, at least 1.
        shift: above 0; 1 changes nothing.
        highest: the first noise level before the shift.
        whole_timesteps: tell the model ``floor(1000 * sigma)``, as the official solvers do, instead of the value.

    Raises:
        InputError: a value out of range.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise InputError(f"steps={num_steps!r} can't be used; give a whole number from 1, such as 50")
    if not 0 < shift < float("inf"):
        raise InputError(f"shift={shift!r} can't be used; give a number above 0, such as 16")
    step = -highest / num_steps
    levels = [shifted(i * step + highest, shift) for i in range(num_steps)]  # rounds as numpy's linspace does
    timesteps = [TRAIN_TIMESTEPS * level for level in levels]
    if whole_timesteps:
        timesteps = [float(int(timestep)) for timestep in timesteps]
    # fp32: the official solvers round the levels once; near 1 that decides the digits of 1 - sigma.
    return Schedule(sigmas=(*map(round_to_float32, levels), 0.0), timesteps=tuple(timesteps))


def round_to_float32(value: float) -> float:
    """``value`` as a float32 would hold it."""
    return struct.unpack("f", struct.pack("f", value))[0]
