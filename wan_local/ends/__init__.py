"""How exact a clip is where images were given, how evenly it moves, and what can be done about it afterwards.

``measure.py`` compares two images, ``report.py`` a clip with its images, ``repairing.py`` brings it to them by
``flash.py``, ``colour.py`` and ``exact.py``, in this order; ``flow.py`` and ``blur.py`` are what the last needs.
"""

from __future__ import annotations

from .measure import Match, colour_difference, match, psnr, ssim
from .repairing import Repaired, repair, repair_to, work_bytes
from .report import Report, report

__all__ = [
    "Match", "Repaired", "Report", "colour_difference", "match", "psnr", "repair", "repair_to", "report", "ssim",
    "work_bytes",
]  # fmt: skip
