"""Where the time of a network goes: products, attention, convolutions, and the rest.

Products and attention are the same kernels of torch on both sides, so a transformer is faster in the rest alone, and
the ratio that follows from the shares is free of what a busy machine does to the kernels. Not so the VAE, of which we
do fewer convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

KERNELS = {  # parts of the names of their operations
    "products": ("mm",),
    "attention": ("scaled_dot_product", "flash_attn", "sage"),
    "convolutions": ("conv",),
}
REST = "rest"
FORWARDS = 3


def shares(work: Callable[[], torch.Tensor], device: str) -> dict[str, float]:
    """Share of the time of each kind of kernel, 0..1, over some calls of ``work``, which is warm."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device != "cpu")
    with profile(activities=activities) as profiled:
        for _ in range(FORWARDS):
            work()
    times = dict.fromkeys((*KERNELS, REST), 0.0)
    for row in profiled.key_averages():
        if row.device_type != DeviceType.CPU:  # a GPU's kernels, whose time the operations that start them have too
            continue
        kind = next((kind for kind, parts in KERNELS.items() if any(part in row.key for part in parts)), REST)
        times[kind] += row.self_cpu_time_total if device == "cpu" else row.self_device_time_total
    total = sum(times.values())
    return {kind: value / total for kind, value in times.items()}


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> tuple[float, float] | None:
    """Time of ours over theirs if products and attention took both the same time, and if ours had no rest at all; None
    of a network that is mostly convolutions."""
    if ours["convolutions"] > ours["products"]:
        return None
    return (1 - theirs[REST]) / (1 - ours[REST]), 1 - theirs[REST]
