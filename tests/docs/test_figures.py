"""The figures of the first page are those of the pages that it links, in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMORY, SEVERAL = ROOT / "docs" / "memory.md", ROOT / "docs" / "multi_gpu.md"
MEASURED = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3_202611.md"
WORDS = {
    "README.md": {"; ": "; ", "VAE in tiles": "VAE in tiles", "none": "everything on the GPU"},
    "README.zh.md": {"; ": "；", "VAE in tiles": "VAE 分块", "none": "全部在显卡上", ", ": "，"},
}
SIZES = ("832x480, 81 frames", "1280x720, 81 frames")
NUMBER = r"(\d+(?:\.\d+)?)"


def rows(page: Path) -> list[list[str]]:
    """The cells of all tables."""
    lines = (line for line in page.read_text("utf-8").splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def figure(part: str, what: str, named: str = "") -> float:
    """One measured figure, or one of those beside it."""
    (row,) = (row for row in rows(MEASURED) if row[:2] == [part, what])
    found = re.search(rf"{named} {NUMBER}", row[3]) if named else re.match(NUMBER, row[2])
    assert found, row
    return float(found[1])


@pytest.mark.parametrize("name", WORDS)
def test_blocks_in_host_memory_are_those_of_the_page_on_memory(name: str) -> None:
    head = next(row for row in rows(MEMORY) if row[0] == "GPU")
    wanted, shown = {}, {}
    for row in rows(MEMORY)[rows(MEMORY).index(head) + 2 :]:
        if not row[0].endswith(" GB"):
            break  # behind it the same for Wan2.2
        for kind, file in (("bf16", "fp16"), ("fp8", "fp8")):
            cells = [row[head.index(f"{kind} {size}")] for size in SIZES]
            said = cells[0] if cells == ["none", "none"] else "; ".join(cells)
            for word, here in WORDS[name].items():
                said = said.replace(word, here)
            wanted[row[0], file] = said
    for row in rows(ROOT / name):
        if row[0].endswith(" GB"):
            shown[row[0], row[1]] = row[2]
    assert shown
    assert shown == {key: wanted[key] for key in shown}


@pytest.mark.parametrize("name", WORDS)
def test_seconds_are_those_measured_or_the_arithmetic_of_their_page(name: str) -> None:
    colon = "：" if name.endswith("zh.md") else ": "
    between = WORDS[name]["; "]
    page = (ROOT / name).read_text("utf-8")
    step = [figure("model", f"forward, {height}p", "guided_step_s") for height in (480, 720)]
    assert f"H100{colon}{step[0]:.1f}{between}{step[1]:.1f}" in page
    on_paper = [float(row[2]) for row in rows(SEVERAL) if row[1].startswith("2 x ") and "PFLOP" in row[1]]
    assert f"RTX 4090{colon}{on_paper[0]:.0f}{between}{on_paper[1]:.0f}" in page
    coded = [
        figure("vae", f"encode float32, {height}p") + figure("vae", f"decode bfloat16, {height}p")
        for height in (480, 720)
    ]
    (four,) = (row for row in rows(ROOT / name) if "LoRA" in row[0] and row[1][0].isdigit())
    (fifty,) = (row for row in rows(ROOT / name) if row[0].startswith(("fifty steps", "五十步")))
    assert [numbers(cell) for cell in four[1:]] == [
        f"{figure('pipeline', '4 steps, 480p'):.1f}",
        f"{4 * figure('model', 'forward, 720p') + coded[1]:.0f}",
    ]
    assert [numbers(cell) for cell in fifty[1:]] == [
        f"{(50 * one + rest) / 60:.0f}" for one, rest in zip(step, coded, strict=True)
    ]


def numbers(cell: str) -> str:
    found = re.match(NUMBER, cell)
    assert found, cell
    return found[1]


OPTIONS = {  # of Wan FLF2V Speed: the rows of the page that its tooltip tells
    "preset": ("balanced (skip list)", "fast (skip list, skip_in_a_row 2)"),
    "skip": ("skip easycache", "skip magcache"),
    "guidance_reuse": ("guidance_reuse 2",),
    "guidance_highest": ("guidance_highest 0.99",),
    "guidance_lowest": ("guidance_lowest 0.65",),
    "cfg_zero": ("cfg_zero on",),
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_prices_on_the_node_are_those_of_the_page(language: str) -> None:
    page = rows(ROOT / "docs" / "speed.md")
    named = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))["WanFLF2VSpeed"]["inputs"]
    nag = next(row for row in page if row[0].startswith("nag"))  # the first table is of the bundled model
    assert f" {nag[6]} dB" in named["nag"]["tooltip"]
    for option, choices in OPTIONS.items():
        tooltip = named[option]["tooltip"]
        for choice in choices:
            _, forwards, _, _, psnr, _, lost = next(row for row in page if row[0] == choice)
            wanted = [f"{forwards} forwards", f"{float(psnr):.0f} dB"]
            wanted += [f"ends {lost} dB"] * (option != "skip")  # the other is not told there
            if language == "zh":
                wanted = [f" {forwards} 次", f"{float(psnr):.0f} dB"] + [f"首尾降低 {lost} dB"] * (option != "skip")
            if choice == "skip magcache":
                wanted[0] = f"magcache {forwards}," if language == "en" else f"magcache 减为 {forwards} 次"
            assert [each for each in wanted if each not in tooltip] == [], option
