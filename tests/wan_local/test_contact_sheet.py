"""The contact sheet: inputs at both ends, frames in order between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from wan_local import contact_sheet
from wan_local.contact_sheet import GAP, LABEL, TILE


@pytest.mark.parametrize(("count", "most", "shown"), [(5, 16, 5), (17, 16, 16), (81, 16, 16), (81, 3, 3)])
def test_frames_are_spread_and_the_ends_are_among_them(count: int, most: int, shown: int) -> None:
    frames = torch.arange(count).view(count, 1, 1, 1).expand(count, 16, 32, 3) / 255  # frame n has level n
    sheet = contact_sheet.draw(frames, dict.fromkeys((0, count - 1), torch.zeros(3, 9, 9)), most=most, columns=1)
    row = LABEL + TILE // 2 + GAP
    tiles = range(1, (sheet.height - GAP) // row - 1)  # between the two images
    indices = [sheet.getpixel((GAP + TILE // 2, GAP + LABEL + TILE // 4 + tile * row))[0] for tile in tiles]
    assert len(indices) == len(set(indices)) == shown
    assert indices == sorted(indices)
    assert (indices[0], indices[-1]) == (0, count - 1)


def test_tiles_are_in_order(tmp_path: Path) -> None:
    levels = torch.linspace(0.2, 0.6, 5)
    frames = levels.view(5, 1, 1, 1).expand(5, 16, 32, 3)
    inputs = {0: torch.zeros(3, 10, 10), 4: torch.ones(3, 10, 10)}
    contact_sheet.write(frames, inputs, tmp_path / "sheet.png", columns=4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (GAP + 4 * (TILE + GAP), GAP + 2 * (LABEL + TILE // 2 + GAP))
        middles = [
            sheet.getpixel((GAP + TILE // 2 + column * (TILE + GAP),
                            GAP + LABEL + TILE // 4 + row * (LABEL + TILE // 2 + GAP)))
            for row in range(2) for column in range(4)
        ][:7]  # fmt: skip
    assert [pixel[0] for pixel in middles] == [0, 51, 76, 102, 128, 153, 255]


def test_an_input_in_the_middle_stands_before_its_frame_which_is_shown() -> None:
    frames = torch.zeros(17, 16, 16, 3)
    tiles = contact_sheet._tiles(frames, {8: torch.ones(3, 16, 16), 16: torch.ones(3, 16, 16)}, "crop", 2)
    assert [label for label, _, _ in tiles] == ["frame 0", "input 8", "frame 8", "frame 16", "last input"]
    assert [int(pixels.max()) for _, _, pixels in tiles] == [0, 1, 0, 0, 1]
