"""Weights sharded over the GPUs (FSDP2): each keeps its rows of every block and gathers a block when it is called.

Zhao et al. 2023, arXiv 2304.11277. Weights are read from the mapped file row by row, so no GPU and no process ever
holds more than its share of a block, plus the block in use.
"""

from __future__ import annotations

import time
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..attention import Attend
from ..errors import InputError
from ..model import WanTransformer
from ..weights import sizes
from ..weights.fit import check_dtypes, check_parameters
from ..weights.load import build, transformer_source
from ..weights.place import copied
from ..weights.source import Entry


def load_sharded(
    path: str | PathLike[str], dtype: torch.dtype, device: torch.device, attend: Attend | None = None
) -> tuple[WanTransformer, dict[str, float]]:
    """A transformer whose blocks are sharded over all ranks of the world.

    Args:
        path: as for :func:`wan_local.weights.load_transformer`.
        dtype: of the weights.
        device: of this rank.
        attend: attention kernel.

    Returns:
        the model, and what was measured: ``bytes`` this rank keeps, ``full`` bytes of all weights, ``seconds``.

    Raises:
        InputError: packed weights, which can't be sharded.
        WeightsError: as for :func:`wan_local.weights.load_transformer`.
    """
    fully_shard, began = _fully_shard(), time.perf_counter()
    source = transformer_source(path)
    check_dtypes(source)
    if source.packed:
        raise InputError(
            f"{path} holds packed weights (fp8, int8, fp4 or GGUF), which fsdp can't shard; run it without fsdp"
        )
    config = sizes.transformer_config(source)
    model = build(source, "Wan transformer", lambda: WanTransformer(config, attend=attend))
    check_parameters(source, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    # Frozen before it is sharded: FSDP asks for one dtype in a block only where there are gradients to reduce.
    model.to(dtype).requires_grad_(False).eval()
    mesh = _mesh(device)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        _read(source.entries[name], parameter)
    kept = sum(_local(value).untyped_storage().nbytes() for value in model.parameters())
    full = sum(value.numel() * value.element_size() for value in model.parameters())
    return model, {"bytes": kept, "full": full, "seconds": time.perf_counter() - began}


def works_on_cpu() -> bool:
    """Whether this torch's FSDP2 asks no CUDA streams of a CPU: from 2.6, which also moved it to its final name."""
    import torch.distributed.fsdp as fsdp

    return hasattr(fsdp, "fully_shard")


def _fully_shard() -> Any:
    """FSDP2's entry, where this torch has it."""
    if works_on_cpu():
        from torch.distributed.fsdp import fully_shard
    else:
        from torch.distributed._composable.fsdp import fully_shard
    return fully_shard


def _mesh(device: torch.device) -> Any:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (dist.get_world_size(),))


@torch.no_grad()
def _read(entry: Entry, parameter: Tensor) -> None:
    """This rank's rows of a parameter, from the file to where they stay."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    stored, target = entry.read(), _local(parameter)
    if isinstance(parameter, DTensor):
        shape, offset = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        if not shape or not shape[0]:
            return
        rows = slice(offset[0], offset[0] + shape[0])
        target[: shape[0]].copy_(stored[rows])
        row = stored.nbytes // max(1, len(stored))
        entry.release(rows.start * row, rows.stop * row)
    else:
        target.copy_(copied(entry, stored, target.dtype, target.device))


def _local(parameter: Tensor) -> Tensor:
    local = getattr(parameter, "to_local", None)
    return parameter if local is None else local()
