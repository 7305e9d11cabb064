"""The pack's own images in the host's input folder, where templates look for them."""

from __future__ import annotations

from pathlib import Path

from .. import host

DEMO = Path(__file__).resolve().parents[2] / "demo"
FILES = {
    "first.png": "real_first.png",
    "last.png": "real_last.png",
    **{name: name for name in ("nano_first.png", "nano_middle.png", "nano_last.png")},
}
"""Name in the templates to file of the pack."""


def bring() -> dict[str, str]:
    """Copy what is not there; name in the templates to name in the input folder.

    A file of that name and of other content is somebody's own: it stays, and ours gets another name.
    """
    return {name: _copied((DEMO / file).read_bytes(), host.input_folder(), name) for name, file in FILES.items()}


def _copied(content: bytes, folder: Path, name: str) -> str:
    while True:
        try:
            with (folder / name).open("xb") as file:
                file.write(content)
        except FileExistsError:
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                name = f"wan_flf2v_{name}"
                continue
        return name
