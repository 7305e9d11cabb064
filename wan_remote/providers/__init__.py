"""The clouds, data in and data out: a new one is a file here and a line below. No network, no files, no clock."""

from __future__ import annotations

from .base import Provider
from .gmi import GMI
from .wavespeed import WaveSpeed

PROVIDERS: dict[str, Provider] = {cloud.name: cloud for cloud in (GMI(), WaveSpeed())}
"""The table: everything else of this package finds a cloud here by its name."""

__all__ = ["PROVIDERS", "Provider"]
