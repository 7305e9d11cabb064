"""Ranks: processes that hold a part of the model each, on this machine or on several, and how they are driven.

``group.py`` is the driver's side, ``rank.py`` the rank's. ``launch.py`` starts ranks on this machine,
``ray_launcher.py`` with ``ray_process.py`` on a Ray cluster. Importing this starts nothing and needs neither torch nor
Ray.
"""

from .errors import Busy, RankError
from .group import RankGroup
from .pool import Pool
from .rank import RankInfo
from .ray_launcher import check_ray
from .settings import STEP_VARIABLE, GroupSpec, Limits, RaySettings, check_devices, cuda_devices, step_limit

__all__ = [
    "STEP_VARIABLE",
    "Busy",
    "GroupSpec",
    "Limits",
    "Pool",
    "RankError",
    "RankGroup",
    "RankInfo",
    "RaySettings",
    "check_devices",
    "check_ray",
    "cuda_devices",
    "step_limit",
]
