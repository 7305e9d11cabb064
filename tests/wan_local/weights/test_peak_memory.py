"""What loading costs in memory, on a synthetic checkpoint of 2 GB: one copy of the weights, and no second."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch

from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer

pytestmark = pytest.mark.long

CONFIG = TransformerConfig(dim=3584, ffn_dim=9728, num_heads=28, num_layers=2)
ROOT = Path(__file__).resolve().parents[3]
BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
CASES = [
    ("F32", 3, "bfloat16", "keep"), ("BF16", 4, "stored", "keep"), ("BF16", 3, "float16", "keep"),
    ("F8_E4M3", 8, "stored", "keep"), ("F8_E4M3", 4, "bfloat16", "unpack"),
]  # fmt: skip
# A line a case: peak and bytes of the result, of a fork of the process from before loading to after it.
MEASURE = """
import json, os, sys
from pathlib import Path
def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
sys.path.insert(0, sys.argv[1])
import torch
from wan_local.weights import load_transformer
def measure(path, wanted, how):
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    dtype = getattr(torch, wanted) if wanted != "stored" else None
    model = load_transformer(path, dtype=dtype, unpack=how == "unpack")
    for value in model.parameters():
        value.view(-1).view(torch.uint8)[::4096].sum()  # touched, so that what is mapped counts too
    size = sum(value.nbytes for value in model.parameters())
    print(json.dumps({"peak": status("VmHWM") - before, "size": size}), flush=True)
for case in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        measure(*case)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def write_sparse(path: Path, dtype: str, layers: int) -> None:
    """A file of zeros that takes no room on the disk."""
    config = TransformerConfig(**{**{name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads")},
                                  "num_layers": layers})  # fmt: skip
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in WanTransformer(config).state_dict().items()}
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, str, str], dict[str, int]]:
    """What the forks of one process measured: importing takes as long as most of the cases."""
    folder, asked = tmp_path_factory.mktemp("sparse"), []
    for number, (stored, layers, wanted, how) in enumerate(CASES):
        path = folder / f"{number}.safetensors"
        write_sparse(path, stored, layers)
        asked.append((str(path), wanted, how))
    command = [sys.executable, "-c", MEASURE, str(ROOT), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_loading_holds_one_copy(told: dict[tuple[str, int, str, str], dict[str, int]], case) -> None:
    stored, _, wanted, how = case
    peak, size = told[case]["peak"], told[case]["size"]
    print(f"{stored} as {wanted} ({how}): peak {peak / 1e9:.2f} GB, {peak / size:.3f} of the {size / 1e9:.2f} GB")
    assert size > 0.9e9
    assert peak / size <= 1.15
