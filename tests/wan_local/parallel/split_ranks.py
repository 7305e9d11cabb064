"""The ranks of the worlds in which all splits are tried; rank 0 of each writes the errors.

``split_ranks.py ROOT FOLDER`` imports everything once, which takes longer than most splits, and forks the ranks.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

ROOT, FOLDER = sys.argv[1], Path(sys.argv[2])
sys.path += [ROOT]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.multiprocessing import start_processes  # noqa: E402

from tests.wan_local.parallel import split_cases as cases  # noqa: E402
from tests.wan_local.quantised.float8_here import has_float8_products  # noqa: E402
from wan_local import notices  # noqa: E402
from wan_local.parallel.rank_model import Rank  # noqa: E402
from wan_local.parallel.sequence import ShardedSequence  # noqa: E402
from wan_local.ranks import RankInfo  # noqa: E402

MODEL = str(FOLDER / "model.safetensors")
TRUTH = load_file(FOLDER / "truth.safetensors") | load_file(FOLDER / "more_truth.safetensors")


def shared_velocity(rank: Rank):
    """Every rank goes the same way: the first one's velocity is sent to all."""

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        found = rank.velocity(latents, timestep)
        found = torch.empty_like(latents) if found is None else found
        dist.broadcast(found, 0)
        return found

    return velocity


def error(rank: Rank, grid: str) -> float:
    given = cases.inputs(cases.GRIDS[grid])
    conds = [{"condition": s.condition, "text": s.text, "image": s.image} for s in cases.conds(given)]
    rank.begin(conds, cases.GUIDANCE)
    found = cases.trajectory(shared_velocity(rank), given["noise"])
    return float((found - TRUTH[grid]).abs().max() / TRUTH[grid].abs().max())


def attentions_of_the_chosen_kernel(info: RankInfo, backend: str) -> int:
    """How many attentions of tokens to tokens, in one guided step, are done by the kernel that was asked for."""
    given, counted = cases.inputs(cases.GRIDS["45 tokens"]), []
    rank = Rank(info, ulysses=info.world, backend=backend)
    rank.load(MODEL, dtype="float32")
    kernel = rank.models[0].attend

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] == 45:  # text and images have other lengths
            counted.append(q.shape)
        return kernel(q, k, v)

    rank.models[0].attend = attend
    rank.begin([{"condition": s.condition, "text": s.text, "image": s.image} for s in cases.conds(given)], 4.0)
    rank.velocity(given["noise"], 900.0)
    return len(counted)


def float8_error(rank: Rank, grid: str) -> float:
    """Of one guided look at the clip, with products in fp8."""
    given = cases.spread(cases.inputs(cases.GRIDS[grid]))
    conds = [{"condition": s.condition, "text": s.text, "image": s.image} for s in cases.conds(given)]
    rank.begin(conds, cases.GUIDANCE)
    found, truth = shared_velocity(rank)(given["noise"], 700.0), TRUTH[f"float8, {grid}"]
    return float((found - truth).norm() / truth.norm())


def sparse_errors(info: RankInfo) -> dict[str, float]:
    """Of one guided look at a long clip under sparse attention, and of a dense look at it."""
    rank = Rank(info, ulysses=info.world)
    rank.load(str(FOLDER / "wide.safetensors"), dtype="float32")
    found = {}
    conds = [asdict(cond) for cond in cases.sparse_conds(0, 4)]
    for name, given in (("sparse", conds), ("dense", [cond | {"sparse": None} for cond in conds])):
        rank.begin(given, 4.0)
        velocity, truth = shared_velocity(rank)(cases.inputs(cases.LONG)["noise"], 700.0), TRUTH["sparse"]
        found[name] = float((velocity - truth).norm() / truth.norm())
    return found


def compiled_error(info: RankInfo, grid: str) -> tuple[float, list[str]]:
    """With compiled blocks, and what is said of them."""
    said: list[str] = []
    with notices.listening(said.append):
        rank = Rank(info, ulysses=info.world)
        rank.load(MODEL, dtype="float32", compiled=True)
        return error(rank, grid), said


def padded(self: ShardedSequence, attend, length: int):
    parts = self._groups.sequence.size
    return attention(self, attend, -(-length // parts) * parts)


def first_rows(self: ShardedSequence, rows: Tensor, dim: int) -> Tensor:
    if dim:
        return shard(self, rows, dim)
    return rows[: -(-len(rows) // self._groups.sequence.size)]


def swapped(self: ShardedSequence, out: Tensor) -> Tensor:
    return to_tokens(self, out).roll(out.shape[2], dims=2)


def left_out(self: ShardedSequence, attend, length: int):
    return lambda q, k, v: attend(q, k, v)


attention, shard, to_tokens = ShardedSequence.attention, ShardedSequence.shard, ShardedSequence._to_tokens
PATCHES = {
    "rope of another rank": ("shard", first_rows), "padding attended to": ("attention", padded),
    "head shards swapped": ("_to_tokens", swapped), "exchange left out": ("attention", left_out),
}  # fmt: skip


def try_all(number: int, world: int) -> None:
    info = RankInfo(rank=number, world=world, device="cpu", backend="gloo", timeout=77.0)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    store = dist.FileStore(str(FOLDER / f"store{world}"), world)
    dist.init_process_group("gloo", store=store, rank=info.rank, world_size=world, timeout=timedelta(seconds=120))
    told: dict[str, Any] = {}
    for backend, table in (("own", cases.SPLITS), ("yunchang", cases.YUNCHANG)):
        for split in table[world]:
            for sharded in cases.SHARDED:
                rank = Rank(info, backend=backend, **split)
                size = rank.load(MODEL, dtype="float32", fsdp=sharded)
                for grid in cases.GRIDS:
                    told[cases.name(split, grid, sharded, backend)] = error(rank, grid)
                if sharded:
                    told[f"share {cases.name(split, '', True, backend)}"] = size["bytes"] / size["full"]
                    told[f"block {cases.name(split, '', True, backend)}"] = block_bytes(rank) / told_full_blocks()
                else:
                    told[f"sent {cases.name(split, '', False, backend)}"] = rank.statistics()["sent"]
    for backend in ("own", "yunchang"):
        told[f"chosen kernel, {backend}"] = attentions_of_the_chosen_kernel(info, backend)
    for what, hook in (("float8", Rank._largest), ("float8, each GPU by itself", lambda self, value: value)):
        with cases.float8_products(), mock.patch.object(Rank, "_largest", hook):
            rank = Rank(info, ulysses=info.world)
            rank.load(str(FOLDER / "float8.safetensors"), float8_matmul=True)
            for grid in cases.GRIDS if has_float8_products() else ():
                told[f"{what}, {grid}"] = float8_error(rank, grid)
    if world == 2 and "sparse" in TRUTH:
        told |= sparse_errors(info)
    if world == cases.COMPILED:
        told["compiled"], told["said"] = compiled_error(info, "45 tokens")
    rank = Rank(info, ulysses=info.world)
    rank.load(MODEL, dtype="float32")
    for mutation, (method, wrong) in PATCHES.items():
        with mock.patch.object(ShardedSequence, method, wrong):
            told[mutation] = error(rank, "45 tokens")
    told["after the mutations"] = error(rank, "45 tokens")
    backend = rank._split(rank.degrees).groups.ulysses._handle._get_backend(torch.device("cpu"))
    told["timeout"] = backend.options._timeout.total_seconds()
    if info.rank == 0:
        (FOLDER / f"told{world}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


def block_bytes(rank: Rank) -> int:
    """What this rank keeps of the blocks that fsdp has sharded."""
    parameters = (value for block in rank.models[0].blocks for value in block.parameters())
    return sum(value.to_local().untyped_storage().nbytes() for value in parameters)


def told_full_blocks() -> int:
    state = load_file(MODEL)
    return sum(value.nbytes for key, value in state.items() if key.startswith("blocks."))


def main() -> None:
    """One world after the other; where a rank fails the others are ended, and its traceback is raised."""
    for world in cases.SPLITS:
        start_processes(try_all, args=(world,), nprocs=world, start_method="fork")


if __name__ == "__main__":
    main()
