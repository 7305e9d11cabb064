"""How far sparse attention is from dense, on random weights: ``python -m benchmarks.sparse_prices``.

One forward of a small transformer of Wan's head width under the real layout of tokens, 21 latent frames whose first and
last are given, at 320x176: 4,620 tokens. Its clip is smooth, with as much noise as a step of that sigma has. How sharp
attention is comes with training, so it is set here by the gain of the norms of queries and keys, and that decides the
price more than anything else: these are no errors of the released model.

On a CPU, where the reference of the kernel calculates; on a GPU its int8 arithmetic comes on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from wan_local.attention import Sparse, sdpa, sparse
from wan_local.config import TransformerConfig
from wan_local.model import WanTransformer
from wan_local.shapes import Grid

CONFIG = TransformerConfig(
    dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=64, freq_dim=64, text_len=16, image_dim=64,
    image_tokens=32,
)  # fmt: skip
TAUS = (0.5, 1.0, 1.3)
GAINS = (1.0, 2.3)
SIGMAS = (0.95, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse_prices", description=__doc__)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=176)
    parser.add_argument("--frames", type=int, default=81)
    args = parser.parse_args()
    torch.set_num_threads(1)
    grid = Grid(frames=args.frames, height=args.height, width=args.width)
    print(f"{grid.tokens:,} tokens, relative L2 error of the velocity to that of dense attention")
    print("| sigma | gain | tau | all frames | both ends | pairs of blocks exact |")
    print("|---|---|---|---|---|---|", flush=True)
    for row in prices(grid):
        print("| " + " | ".join(row) + " |", flush=True)


@torch.no_grad()
def prices(grid: Grid) -> Iterator[list[str]]:
    """Rows of the table."""
    ends = [0, grid.latent_frames - 1]
    for sigma in SIGMAS:
        inputs = noisy_clip(grid, sigma)
        for gain in GAINS:
            model = random_model(gain)
            dense = model(*inputs)
            for tau in TAUS:
                shares: list[float] = []
                with mock.patch.object(sparse, "_run", _counting(sparse._run, shares)):
                    found = model(*inputs, sparse=Sparse(tau=tau, min_tokens=0, given=tuple(ends)))
                of_ends = _error(found[:, :, ends], dense[:, :, ends])
                share = sum(shares) / len(shares)
                yield [f"{sigma:g}", f"{gain:g}", f"{tau:g}", f"{_error(found, dense):.4f}", f"{of_ends:.4f}",
                       f"{share:.2f}"]  # fmt: skip


def random_model(gain: float) -> WanTransformer:
    """Weights that keep the size of what goes through them; queries and keys have ``gain`` for their norm."""
    torch.manual_seed(0)
    model = WanTransformer(CONFIG, attend=sdpa.attend).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "modulation" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif name.endswith(("self_attn.norm_q.weight", "self_attn.norm_k.weight")):
            torch.nn.init.constant_(parameter, gain)
    return model


def noisy_clip(grid: Grid, sigma: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the transformer takes: a smooth clip under noise, its ends known."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 16, 4, 6, 8, generator=generator)
    clean = functional.interpolate(coarse, size=grid.latent_shape, mode="trilinear")
    clean = clean / clean.std()
    noise = torch.randn(clean.shape, generator=generator)
    mask = torch.zeros(1, 4, *grid.latent_shape)
    mask[:, :, [0, -1]] = 1
    latents = torch.cat([(1 - sigma) * clean + sigma * noise, mask, clean * mask[:, :1]], dim=1)
    text = torch.randn(1, CONFIG.text_len, CONFIG.text_dim, generator=generator)
    image = torch.randn(1, CONFIG.image_tokens, CONFIG.image_dim, generator=generator)
    return latents, torch.tensor([1000 * sigma]), text, image


def exact_share(q: Tensor, k: Tensor, tau: float, blocks: int) -> float:
    """Pairs of blocks that the kernel reads exactly, by its rule, of all; ``[B, L, N, K]``."""
    q, k = (torch.stack([part.mean(1) for part in rows.split(sparse.BLOCK, dim=1)], dim=2) for rows in (q, k))
    k = k - k.mean(2, keepdim=True)  # [B, N, blocks, K]
    spread = (q.square() @ k.square().mean(2, keepdim=True).mT).sqrt()  # [B, N, blocks, 1]
    exact = q @ k.mT > tau * spread
    at = torch.arange(q.shape[2])
    exact |= (at - at[:, None]).abs() <= 1
    exact[..., :blocks] = True
    return float(exact.float().mean())


def _counting(run: Callable[..., Tensor], shares: list[float]) -> Callable[..., Tensor]:
    def counted(q: Tensor, k: Tensor, v: Tensor, tau: float, blocks: int) -> Tensor:
        shares.append(exact_share(q, k, tau, blocks))
        return run(q, k, v, tau, blocks)

    return counted


def _error(found: Tensor, dense: Tensor) -> float:
    return float((found - dense).norm() / dense.norm())


if __name__ == "__main__":
    main()
