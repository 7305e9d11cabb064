"""Calculating less than everything, on request: what may be chosen, and what each choice does. Start at ``options.py``.

One file an idea. ``run.py`` puts them between the sampling loop and the models of a run; the two that work inside the
transformer, ``nag`` and ``sparse``, are there in ``model/`` and ``attention/``.
"""

from .options import EXACT, NAMES, SKIPS, Approximations
from .presets import NOTHING, PRESETS, approximations_of, named

__all__ = ["EXACT", "NAMES", "NOTHING", "PRESETS", "SKIPS", "Approximations", "approximations_of", "named"]
