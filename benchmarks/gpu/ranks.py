"""Two ranks on this one GPU over gloo, and one over NCCL, against no ranks; the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from wan_local import weights
from wan_local.ranks import GroupSpec, RankGroup
from wan_local.sampling import Cond, model_velocity
from wan_local.shapes import Grid

from .lab import Lab, off_by

NANO = str(Path(__file__).parents[2] / "weights" / "nano")
SPLITS: tuple[tuple[str, int, dict[str, int]], ...] = (
    ("cond and uncond apart", 2, {"cfg": 2}),
    ("Ulysses", 2, {"ulysses": 2}),
    ("ring", 2, {"ring": 2}),
    ("one rank over NCCL", 1, {}),
)
ALLOWED = 1e-5


def measure(lab: Lab) -> None:
    model = weights.load_transformer(NANO, torch.float32, lab.device)
    config, grid = model.config, Grid(frames=17, height=64, width=64)
    dice = torch.Generator().manual_seed(3)

    def cond() -> dict[str, Any]:
        return {
            "condition": torch.randn(1, 20, *grid.latent_shape, generator=dice),
            "text": torch.randn(1, config.text_len, config.text_dim, generator=dice),
            "image": torch.randn(1, config.image_tokens, config.image_dim, generator=dice),
        }

    conds, x = [cond(), cond()], torch.randn(1, 16, *grid.latent_shape, generator=dice)
    here = [Cond(**{name: rows.to(lab.device) for name, rows in each.items()}) for each in conds]
    expected = model_velocity(model, here, 3.0)(x.to(lab.device), 500.0)
    device = "cuda:0" if lab.on_gpu else "cpu"
    for name, count, split in SPLITS if not lab.toy else SPLITS[:1]:
        lab.need(20)
        about = {"backend": "nccl"} if count == 1 and lab.on_gpu else {}
        options = {**split, "weights": {"path": NANO, "dtype": "float32"}}
        spec = GroupSpec(target=".parallel.rank_model:Rank", devices=(device,) * count, kwargs=options, **about)  # type: ignore[arg-type]
        group = RankGroup(spec)
        try:
            group.start()
            group.call("begin", conds, 3.0, 1, None, stage="begin")
            got = group.call_first("velocity", x, 500.0, 1, stage="step")
            error = off_by(got, expected)
            lab.tell(name, error, expected=f"<= {ALLOWED}", holds=error <= ALLOWED)
        except Exception as error:
            lab.tell(name, "failed", why=" ".join(str(error).split())[:200], holds=False)
        finally:
            group.close()
