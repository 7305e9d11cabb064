"""Memory is the host's: it stays flat over many runs, and /free gives the weights back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from comfy_server import ComfyServer
from nano_graph import MODEL, SAMPLER, single_nodes
from safetensors.torch import save_file

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer

RUNS, WARM_UP, MEAN, FLAT = 12, 4, 4, 0.02
# glibc keeps freed memory for itself and keeps more of it over time; so it gives every larger piece back at once.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
LARGE = 300 * 2**20  # bytes of the weights that /free has to give back
CONFIG = TransformerConfig(
    dim=1024, ffn_dim=4096, num_heads=8, num_layers=4, text_dim=128, image_dim=96, image_tokens=100
)


@pytest.fixture(scope="module")
def own_server(new_base: Callable[..., Path], models: Path) -> Iterator[ComfyServer]:
    with ComfyServer(new_base("memory", models), environment=RETURN_MEMORY) as running:
        yield running


def resident(server: ComfyServer) -> int:
    """Bytes of memory that are the process's own; mapped files that it only reads don't count."""
    text = Path(f"/proc/{server.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
def test_a_dozen_runs_leave_memory_flat(own_server: ComfyServer) -> None:
    graph, series = single_nodes(), []
    graph[SAMPLER]["inputs"]["steps"] = 2
    for seed in range(WARM_UP + RUNS):
        graph[SAMPLER]["inputs"]["seed"] = seed
        assert own_server.run(graph).status == "success"
        series.append(resident(own_server))
    megabytes = [round(value / 2**20) for value in series]
    print(f"memory after each run, MiB: {megabytes[:WARM_UP]} warm-up, then {megabytes[WARM_UP:]}")
    first, last = (sum(part) / MEAN for part in (series[WARM_UP : WARM_UP + MEAN], series[-MEAN:]))
    assert last <= first * (1 + FLAT)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
def test_free_gives_the_weights_back(own_server: ComfyServer) -> None:
    torch.manual_seed(0)
    model = WanTransformer(CONFIG)
    state = {name: value.detach() * 0.5 for name, value in model.state_dict().items()}
    size = sum(value.nbytes for value in state.values())
    assert size > LARGE
    save_file(state, own_server.base / "models" / "diffusion_models" / "large.safetensors", {"config": json.dumps({})})
    graph = single_nodes()
    # Cast while loading, so that the weights are in memory and not mapped from the file.
    graph[MODEL]["inputs"].update(model_name="large.safetensors", weight_dtype="bf16")
    graph[SAMPLER]["inputs"]["steps"] = 1
    before = resident(own_server)
    run = own_server.run(graph)
    assert run.status == "success", run.error
    loaded = resident(own_server)
    own_server.free(lambda: resident(own_server) <= before + size // 8, unload_models=True, free_memory=True)
    freed = resident(own_server)
    print(f"memory: {before / 2**20:.0f} MiB, {loaded / 2**20:.0f} with the model, {freed / 2**20:.0f} after /free")
    assert loaded - before > size // 2 * 0.9  # bf16 takes half of the file
    assert freed - before < (loaded - before) / 4
