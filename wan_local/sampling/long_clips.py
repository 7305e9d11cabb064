"""What a run in a person's way of making a longer clip starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..config import TransformerConfig
from ..longer import PLAIN, RIFLEX, Longer
from ..model.rope import axis_pairs, intrinsic
from ..notices import tell
from ..shapes import latent_frames, video_frames
from ..words import counted
from .cond import Cond
from .windows import shuffled


def lengthened(
    longer: Longer, conds: Sequence[Cond], noise: Tensor, config: TransformerConfig, seed: int
) -> tuple[list[Cond], Tensor]:
    """Cond, uncond and noise of the run; as they are where the clip is short enough, which is said.

    Args:
        longer: the way.
        conds: under the prompt, then under the negative prompt, of the whole clip.
        noise: ``[B, C, T, h, w]`` on the CPU.
        config: of the transformer.
        seed: of the noise.
    """
    if longer.way == PLAIN:
        return list(conds), noise
    total = noise.shape[2]
    if longer.way == RIFLEX:
        _, most = intrinsic(axis_pairs(config.head_dim)[0], latent_frames(config.trained_frames))
    else:
        most = longer.seen
    if total <= most:
        tell(
            f"{longer.way} acts on clips of more than {counted(video_frames(most), 'frame')}, and this one has "
            f"{video_frames(total)}; it changes nothing"
        )
        return list(conds), noise
    if longer.way == RIFLEX:
        return [replace(cond, riflex=True) for cond in conds], noise
    cut = [cond.in_windows(longer.seen, longer.shared, config) for cond in conds]
    return cut, shuffled(noise, longer.seen, longer.shared, seed)
