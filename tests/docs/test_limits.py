"""Limits, sizes and lists that a page tells in words are those of the code, or of the file with what was measured."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.docs.test_figures import rows
from wan_local.config import WAN_EXPERT_14B, WAN_FLF2V_14B, WAN_VAE
from wan_local.encoders import cache as text_cache
from wan_local.flops import transformer_forward
from wan_local.memory.activations import (
    FLOAT,
    LONGEST,
    RESERVE,
    clip_bytes,
    transformer_work,
    vae_decode_work,
    vae_encode_work,
)
from wan_local.memory.plan import LARGEST, USUAL
from wan_local.memory.stored import released
from wan_local.memory.tiles import AUTO, TILES, ways
from wan_local.model import pieces
from wan_local.parallel import yunchang_backend
from wan_local.parallel.degrees import Degrees
from wan_local.parallel.plan import experts_take_turns, gpu_bytes
from wan_local.quantised.ggml import FORMATS
from wan_local.ranks.settings import STEP_VARIABLE, Limits
from wan_local.shapes import SPATIAL_STRIDE
from wan_local.weights import refused
from wan_remote.journal import tidying

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3_202611.jsonl"
GB = 10**9
ORDINAL = {3: "third"}
NUMBER = {
    5.0: "five", 120.0: "two minutes", 600.0: "ten minutes", 900.0: "15 minutes", 1800.0: "half an hour",
    3600.0: "an hour", 90 * 86400.0: "90 days",
}  # fmt: skip
newest = pytest.mark.skipif(
    not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="memory is that of a torch with a fused RMSNorm"
)


def text(name: str) -> str:
    """A page in one line."""
    return " ".join((ROOT / name).read_text("utf-8").split())


def constant(file: str, name: str) -> Any:
    """A number of a file that only a ComfyUI can import."""
    found = re.search(rf"^{name} = ([\d.]+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    assert found, f"{file} has no {name}"
    return float(found[1])


@cache
def measured(part: str, name: str) -> dict[str, Any]:
    """One line of what an H100 gave."""
    lines = map(json.loads, MEASURED.read_text("utf-8").splitlines())
    (found,) = (line for line in lines if line.get("part") == part and line.get("name") == name)
    return {**found["more"], "value": found["value"]}


def listed(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def smallest_for_both(itemsize: int) -> tuple[int, int]:
    """Whole GB of a GPU on which both experts of Wan2.2 stay, and of one that holds one at a time."""
    config, pair = released(torch.bfloat16, itemsize, WAN_EXPERT_14B)
    both = next(size for size in range(100) if not experts_take_turns(config, pair, size * GB))
    one = gpu_bytes(config, replace(pair, waiting=()), LARGEST, Degrees()) + RESERVE
    return both, round(one / GB)


def tile(free: int, itemsize: int, encode: bool) -> int:
    """Pixels of the tiles of 1280x720 with ``free`` GB."""

    def work(shape: Any) -> int:
        return vae_encode_work(WAN_VAE, shape) if encode else vae_decode_work(WAN_VAE, shape, itemsize)

    first = ways(AUTO, LARGEST.latent_shape, free * GB, work)[0]
    assert first is not None
    return first.tile * SPATIAL_STRIDE


def test_the_page_on_memory() -> None:
    page = text("docs/memory.md")
    _, weights = released(torch.bfloat16, 2)
    _, packed = released(torch.bfloat16, 1)
    small, large = (transformer_forward(WAN_FLF2V_14B, grid) / WAN_FLF2V_14B.num_layers / 1e15 for grid in USUAL)
    sides = tuple(side * SPATIAL_STRIDE for side in TILES)
    wanted = (
        f"is {weights.blocks[0] / GB:.2f} GB in bfloat16 and {packed.blocks[0] / GB:.2f} GB in fp8",
        f"calculation at 1280x720 is {large:.2f} PFLOP, at 832x480 {small:.2f} PFLOP",
        f"whole frames, then tiles of {listed(sides)} pixels",
        f"after the {ORDINAL[LONGEST]} latent frame",
        f"({clip_bytes(LARGEST.latent_shape) / GB:.1f} GB for 81 frames of 1280x720)",
        f"leaves {RESERVE / GB:.1f} GB free on top",
        f"over pieces of {pieces.MOST:,} tokens",
        f"hold their tokens twice: {LARGEST.tokens * WAN_FLF2V_14B.dim * FLOAT / GB:.1f} GB more at 1280x720",
        f"text encoder, {weights.text_encoder / GB:.1f} GB in bfloat16, works on the CPU",
        f"text encoder, {weights.text_encoder / GB:.1f} GB in bfloat16, is loaded only",
        f"({weights.transformer / GB:.1f} GB for the fp16 file in bfloat16)",
        f"`{text_cache.FOLDER}` within a folder",
        f"They take {text_cache.LIMIT // 10**6} MB at most",
    )
    assert [each for each in wanted if each not in page] == []


@newest
def test_the_tiles_that_fit() -> None:
    assert [tile(free, FLOAT, True) for free in (8, 5)] == [tile(free, FLOAT, False) for free in (8, 5)]
    first = f"is {tile(8, FLOAT, True)} pixels with 8 GB free and {tile(5, FLOAT, True)} with 5 in float32"
    assert f"{first}, as it encodes, and {tile(8, 2, False)} and {tile(5, 2, False)} where it decodes in bfloat16" in (
        text("docs/memory.md")
    )


@newest
def test_the_memory_of_a_real_forward_is_told_as_it_was_measured() -> None:
    found = measured("model", "memory of a forward, 720p")
    planned = transformer_work(WAN_FLF2V_14B, LARGEST, 2) / GB
    assert f"takes {found['value']:.2f} GB beside its weights where {planned:.2f} are planned" in text("docs/memory.md")
    others = [
        measured("vae", f"{what} {how}p") for how in (480, 720) for what in ("encode float32,", "decode float32,")
    ]
    others += [measured("offload", f"{blocks} of 12 blocks away, {how}p") for blocks, how in ((12, 480), (12, 720))]
    for each in others:  # "within 1 %"
        assert each["peak_GB"] == pytest.approx(each["plan_GB"], rel=0.01)
    for height in (480, 720):  # "within 3 %" of the first page
        each = measured("model", f"memory of a forward, {height}p")
        assert each["value"] == pytest.approx(each["plan"], rel=0.03)
    assert "the computation was within 3 %" in text("README.md")


def test_the_page_on_several_gpus() -> None:
    page, limits = text("docs/multi_gpu.md"), Limits()
    idle = constant("nodes/sockets/model_on_gpus.py", "IDLE_SECONDS")
    ray = re.search(r'^ray = \["(.+?)"\]', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert ray
    wanted = (
        f"{NUMBER[limits.first]} for the first step, then {NUMBER[limits.call]}, or {NUMBER[limits.slack]} times the",
        f"or what `{STEP_VARIABLE}` says in seconds",
        f"{NUMBER[limits.start]} to start, {NUMBER[limits.join].split()[0]} to meet and {NUMBER[limits.load]} to load,",
        f"end after {NUMBER[idle]} without a run",
        f"(`{yunchang_backend.INSTALL}`, `--sequence-backend yunchang`)",
        f"xfuser itself, from {'.'.join(map(str, yunchang_backend.XFUSER_BROKEN))} on,",
        f'(`pip install "{ray[1]}"`)',
    )
    assert [each for each in wanted if each not in page] == []


@newest
def test_where_both_experts_stay() -> None:
    (bf16, one), (fp8, one_fp8) = smallest_for_both(2), smallest_for_both(1)
    page = text("docs/multi_gpu.md")
    assert f"from {bf16} GB in bfloat16, from {fp8} GB in fp8, by the plan." in page
    assert f"they take turns ({one} GB, {one_fp8} GB)" in page


def test_what_an_h100_calculated_is_told_as_it_was_measured() -> None:
    page = text("docs/numerics.md")
    patches, bf16, fp16 = (measured("correctness", f"forward {each}, real width")["value"] for each in
                           ("float32", "bfloat16", "float16"))  # fmt: skip
    attention = measured("attention", "auto, 720p")["error"]
    wanted = (
        f"{power(bf16)} in bf16, {power(fp16)} in fp16",
        f"against float64 {power(attention)} in bf16",
        f"alone made the velocity {power(patches)} wrong",
        f"made latents differ by {power(measured('correctness', 'VAE encode float32')['value'])} from",
    )
    assert [each for each in wanted if each not in page] == []


def power(value: float) -> str:
    """0.00123 as "1.2e-3"."""
    return re.sub("e-0", "e-", f"{value:.1e}")


BOUNDS = {  # the table's rows, and where the bound of each stands
    "transformer forward, FLF2V": "tests/wan_local/model/test_transformer_parity.py",
    "one block at width 5120": "tests/wan_local/model/test_transformer_parity.py",
    "VAE encode / decode, six sizes": "tests/wan_local/vae/test_vae.py",
}


def test_the_bounds_of_parity_are_those_of_the_tests() -> None:
    named = {row[0]: row for row in rows(ROOT / "docs/numerics.md")}
    for begin, file in BOUNDS.items():
        (row,) = (row for name, row in named.items() if name.startswith(begin))
        bound = re.search(r"^BOUND = (\S+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
        assert bound
        assert row[3] == bound[1]
        assert all(float(error) <= float(bound[1]) for error in row[2].split(" / "))


def test_the_releases_of_pyav_begin_with_the_oldest_that_is_asked_for() -> None:
    (row,) = (row for row in rows(ROOT / "docs/numerics.md") if row[0][:1].isdigit())
    releases = row[0].split(", ")
    floor = re.search(r"^av>=(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    tried = re.search(r"^HOST_PYAV \?= (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert floor
    assert tried
    assert releases[0] == f"{floor[1]}.0"
    assert set(tried[1].split()) <= set(releases)


def test_the_types_of_gguf_are_those_that_are_read() -> None:
    named: set[str] = set()
    for row in rows(ROOT / "docs/weights.md"):
        if row[0].startswith("GGUF ") and len(row) == 3:
            for name in row[0].removeprefix("GGUF ").split(", "):
                named |= {kind for kind in FORMATS if re.fullmatch(name.replace("*", ".*"), kind)} or {name}
    assert named == {"F16", "BF16", *FORMATS}


def test_who_packs_files_that_are_refused_is_named() -> None:
    page = text("docs/weights.md").split("## What is refused, by name")[1].split("## ")[0]
    makers = {maker.split(" ")[0] for maker in (*refused.LEAVES.values(), *refused.WHOLE_BYTES.values())}
    assert [maker for maker in makers if maker not in page] == []


@pytest.mark.skipif(not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="an older torch has not all of them")
@pytest.mark.parametrize(
    ("head", "module", "name"),
    [
        ("layout", "tests.wan_local.weights.test_packed_formats", "LAYOUTS"),
        ("layout, merged into float32 weights", "tests.wan_local.lora.test_lora", "LAYOUTS"),
        ("weights, a LoRA of every kind of change beside them", "tests.wan_local.lora.test_lora_beside", "PACKED"),
    ],
)
def test_every_layout_that_is_tested_has_its_row_of_figures(head: str, module: str, name: str) -> None:
    found = rows(ROOT / "docs/weights.md")
    begin = next(at for at, row in enumerate(found) if row[0] == head)
    width = len(found[begin])
    own = []
    for row in found[begin + 2 :]:
        if len(row) != width or row[0] == "layout" or row[0].startswith("weights, "):
            break
        own.append(row)
    tested = getattr(importlib.import_module(module), name)
    assert sorted(row[0] for row in own) == sorted(tested)
    if module.endswith("test_packed_formats"):
        assert [row[0] for row in own if float(row[-1]) > tested[row[0]][1]] == []


def test_what_the_page_about_hosts_says_of_the_oldest() -> None:
    project, page = (ROOT / "pyproject.toml").read_text("utf-8"), text("docs/hosts.md")
    comfyui = re.search(r'^requires-comfyui = ">=(.+)"', project, re.MULTILINE)
    python = re.search(r'^requires-python = ">=([\d.]+)', project, re.MULTILINE)
    floor = re.search(r"^torch>=(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert comfyui
    assert python
    assert floor
    oldest = re.search(r"runs on ComfyUI (\S+) \((.+?)\) and newer", page)
    assert oldest
    assert oldest[1] == comfyui[1]
    assert f"Python {python[1]}, torch {floor[1]}" in oldest[2]


def test_the_page_about_the_editor_has_every_address_and_no_other() -> None:
    source = (ROOT / "nodes" / "editor" / "__init__.py").read_text("utf-8")
    made = {f"{method.upper()} {path}" for method, path in re.findall(r'answer\("(\w+)", "([^"]+)"', source)}
    told = {found[0] for row in rows(ROOT / "docs/editor.md") if (found := re.findall(r"(?:GET|POST) [/a-z]+", row[0]))}
    assert told == made
    most = constant("nodes/editor/jobs.py", "MOST")
    assert f"a page of at most {most:.0f} jobs" in text("docs/editor.md")


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_how_large_the_bundled_model_is(name: str) -> None:
    size = sum(path.stat().st_size for path in (ROOT / "weights" / "nano").rglob("*") if path.is_file())
    assert f"{size / 1e6:.0f} MB" in (ROOT / name).read_text("utf-8")


def test_the_official_code_is_that_of_the_golden_tensors() -> None:
    commit = re.search(r"Wan-Video/Wan2\.1 at commit (\w+)", text("tests/golden/README.md"))
    assert commit
    assert f"(Wan-Video/Wan2.1, commit {commit[1]})" in text("docs/numerics.md")


def test_how_long_a_finished_job_is_kept() -> None:
    kept = NUMBER[tidying.KEPT]
    assert f"| {kept} |" in text("docs/remote_states.md")
    assert f"one that failed stays for {kept}" in text("js/docs/WanFLF2VGMI.md")
    assert f"失败的任务保留 {kept.split()[0]} 天" in text("js/docs/WanFLF2VGMI/zh.md")
