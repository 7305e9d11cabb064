"""Imports go one way: no two rooms of a library need each other, not even inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contracts.test_doors import ROOT, sources

LAZY = ("cli",)  # a program imports each command when it is asked for, and its commands their program's name


def imported(path: Path) -> Iterator[str]:
    """Dotted names within the library that a file imports, wherever it does; those for type checkers alone are left
    out."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            yield from (".".join(filter(None, (*base, alias.name))) for alias in node.names)


def room(name: str, library: str) -> str:
    """The folder of a library, or its file, that a dotted name is in; the library itself for its own names."""
    first = name.removeprefix(library).strip(".").split(".")[0]
    known = (ROOT / library / first).is_dir() or (ROOT / library / f"{first}.py").is_file()
    return first if first and known else library


@pytest.mark.parametrize("library", ["wan_local", "wan_remote", "nodes"])
def test_rooms_form_no_circle(library: str) -> None:
    needs: dict[str, set[str]] = {}
    for path in sources(library):
        here = room(".".join(path.relative_to(ROOT).with_suffix("").parts), library)
        if here not in LAZY:
            needs.setdefault(here, set()).update({room(name, library) for name in imported(path)} - {here})
    try:
        tuple(TopologicalSorter(needs).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", ["wan_local.parallel.rank_model", "wan_local.generate"])
def test_what_encoders_need_is_imported_when_one_is_loaded(module: str) -> None:
    """It takes as long as half of torch, and each rank is a process that loads no encoder."""
    asked = f"import sys, {module}; print({{'transformers', 'ftfy', 'huggingface_hub'}} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


COUNTED = """
import sys
from wan_local import weights
from wan_local.config import WAN_FLF2V_14B, WAN_VAE
from wan_local.memory.activations import transformer_work, vae_decode_work, vae_encode_work
from wan_local.shapes import Grid
grid = Grid(frames=81, height=480, width=832)
weights.load_transformer("weights/nano")
vae_encode_work(WAN_VAE, grid.latent_shape), vae_decode_work(WAN_VAE, grid.latent_shape)
transformer_work(WAN_FLF2V_14B, grid, 2)
print({"sympy", "torch._dynamo"} & set(sys.modules))
"""


@pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "_should_skip_dynamo"), reason="this torch imports its compiler to count anything"
)
def test_loading_and_planning_import_no_compiler() -> None:
    """It takes two seconds in `inspect` and half of one in each rank."""
    told = subprocess.run([sys.executable, "-c", COUNTED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
