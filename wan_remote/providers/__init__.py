"""The clouds, data in and data out. No network, no files, no clock.

A new one is a file here, with a :class:`~..request.Request` (its fields and their checks) and a
:class:`~.base.Provider` (its addresses, variables, options, limits, calls and how its answers are read), and its
name below. The rest finds it there: keys, uploads, polling, the command line, the nodes for account and results.
"""

from __future__ import annotations

from .base import Provider
from .gmi import GMI
from .wavespeed import WaveSpeed

PROVIDERS: dict[str, Provider] = {cloud.name: cloud for cloud in (GMI(), WaveSpeed())}
"""The table: everything else of this package finds a cloud here by its name."""

__all__ = ["PROVIDERS", "Provider"]
