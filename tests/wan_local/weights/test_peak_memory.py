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
# Peak and bytes of the result, of the process from before loading to after it; in a process of its own, since the
# peak of one that was forked starts at its parent's.
MEASURE = """
import json, sys
from pathlib import Path
def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
sys.path.insert(0, sys.argv[1])
import torch
from wan_local.weights import load_transformer
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
before = status("VmRSS")
dtype = getattr(torch, sys.argv[3]) if sys.argv[3] != "stored" else None
model = load_transformer(sys.argv[2], dtype=dtype, unpack=sys.argv[4] == "unpack")
for value in model.parameters():
    value.view(-1).view(torch.uint8)[::4096].sum()  # touched, so that what is mapped counts too
size = sum(value.nbytes for value in model.parameters())
print(json.dumps({"peak": status("VmHWM") - before, "size": size}))
"""


def write_sparse(path: Path, dtype: str, layers: int) -> int:
    """A file of zeros that takes no room on the disk; its size."""
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
    return 8 + len(text) + at


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("stored", "layers", "wanted", "how"),
    [("F32", 3, "bfloat16", "keep"), ("BF16", 4, "stored", "keep"), ("BF16", 3, "float16", "keep"),
     ("F8_E4M3", 8, "stored", "keep"), ("F8_E4M3", 4, "bfloat16", "unpack")],
)  # fmt: skip
def test_loading_holds_one_copy(tmp_path: Path, stored: str, layers: int, wanted: str, how: str) -> None:
    path = tmp_path / "model.safetensors"
    size = write_sparse(path, stored, layers)
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, str(ROOT), str(path), wanted, how], capture_output=True, text=True, check=False
    )
    assert not found.returncode, found.stderr[-2000:]
    told = json.loads(found.stdout)
    ratio = told["peak"] / told["size"]
    print(f"{size / 1e9:.2f} GB of {stored} as {wanted} ({how}): peak {told['peak'] / 1e9:.2f} GB, "
          f"{ratio:.3f} of the {told['size'] / 1e9:.2f} GB of the result")  # fmt: skip
    assert told["size"] > 0.9e9
    assert ratio <= 1.15
