"""What clips cost at the clouds, by the lists that :mod:`wan_remote.providers` have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...wan_remote.providers import PROVIDERS


def lists(nodes: Sequence[type[Any]]) -> list[dict[str, Any]]:
    """A row a cloud: its node, which stands in a file of the cloud's name, and its price list, if it has one."""
    names = {made.__module__.rpartition(".")[2]: made.__name__ for made in nodes}
    return [
        {
            "provider": cloud.name,
            "label": cloud.label,
            "node": names[cloud.name],
            "site": cloud.site,
            "prices": None if cloud.prices is None else asdict(cloud.prices),
        }
        for cloud in PROVIDERS.values()
    ]
