"""Ranks: processes that hold a part of the model each, on this machine or on several, and how they are driven.

``group.py`` is the driver's side, ``rank.py`` the rank's; ``local.py`` with ``worker.py`` and ``ray_launcher.py`` with
``bridge.py`` are the two ways to bring them together. Importing this starts nothing and needs neither torch nor Ray.
"""

from .errors import Busy, RankError
from .group import RankGroup
from .limits import STEP_VARIABLE, Limits, step_limit
from .pool import Pool
from .rank import Place
from .spec import GroupSpec, RaySettings, check_devices, cuda_devices

__all__ = [
    "STEP_VARIABLE",
    "Busy",
    "GroupSpec",
    "Limits",
    "Place",
    "Pool",
    "RankError",
    "RankGroup",
    "RaySettings",
    "check_devices",
    "cuda_devices",
    "step_limit",
]
