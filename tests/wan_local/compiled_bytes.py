"""What the fused kernels of a compiled block read and write, by inductor's own count: a process of its own.

    python -m tests.wan_local.compiled_bytes TOKENS

prints the bytes of everything that is neither a layer nor attention.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from wan_local.attention import sdpa
from wan_local.compiled import compile_blocks
from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.model.blocks import Context
from wan_local.model.rope import rope_table

# Of a head's width and a feed-forward network as in the released model, whose widths are ten times these.
MODEL = TransformerConfig(dim=512, ffn_dim=1408, num_heads=4, num_layers=1, text_dim=32, image_dim=32, image_tokens=16,
                          text_len=16)  # fmt: skip
WIDE, HIGH = 8, 8


def main(tokens: int) -> int:
    """Trace and fuse one block for so many tokens; bytes of the kernels that inductor would build."""
    moved = []

    def count(graph: Any) -> Any:
        graph.codegen()
        ours = [node for node in graph.scheduler.nodes if "Extern" not in type(node).__name__]
        moved.append(sum(node.get_read_write_buffers_sizes() for node in ours))
        raise RuntimeError("counted")  # a C++ compiler would work on the kernels for most of a minute

    config.force_disable_caches = True  # what comes from a cache is not counted
    GraphLowering.compile_to_module = count
    model = WanTransformer(MODEL, attend=sdpa.attend).to(torch.bfloat16).requires_grad_(False)
    compile_blocks(model)
    noise = torch.randn
    context = Context(
        time=noise(1, 6, MODEL.dim),
        text=noise(1, MODEL.text_len, MODEL.dim, dtype=torch.bfloat16),
        image=noise(1, MODEL.image_tokens, MODEL.dim, dtype=torch.bfloat16),
        rope=rope_table((tokens // (WIDE * HIGH), HIGH, WIDE), MODEL.head_dim, torch.device("cpu")),
        dtype=torch.bfloat16,
        attend=sdpa.attend,
    )
    with torch.no_grad():
        model.blocks[0](noise(1, tokens, MODEL.dim), context)
    (bytes_moved,) = moved
    return bytes_moved


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
