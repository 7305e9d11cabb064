"""A transformer under one prompt and one set of images: what guidance and samplers call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..attention import Sparse, choose
from ..config import TransformerConfig
from ..model.nag import Nag
from ..shapes import TEMPORAL_STRIDE
from .guidance import Velocity, guided_velocity
from .windows import Window, fused, places, with_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Cond:
    """Everything of the transformer's inputs that stays the same over a run, under one prompt: cond or uncond.

    Attributes:
        condition: ``[1, 4 + z_dim, T, h, w]`` mask and image latents, see :func:`wan_local.conditioning.known_frames`.
        text: ``[1, S, text_dim]`` prompt embeddings.
        image: ``[1, N, image_dim]`` image embeddings, none where no image is seen; None without image branch.
        image_row: where they are one image's of two, the learned position they begin with; see
            :meth:`wan_local.model.WanTransformer.forward`.
        low_condition: ``condition`` for the low-noise one of two experts; None where it takes the same.
        riflex: of :meth:`wan_local.model.WanTransformer.forward`.
        windows: what the transformer sees of the clip at a time; none where it sees all.
        nag: what the attention to the text keeps away from, see :mod:`wan_local.model.nag`; mostly None.
        attention: name of a kernel in the place of the model's own; "" is that.
        sparse: sparse attention, and in which steps; None for none. The given frames in it are those of ``condition``.
    """

    condition: Tensor
    text: Tensor
    image: Tensor | None = None
    image_row: int | None = None
    low_condition: Tensor | None = None
    riflex: bool = False
    windows: tuple[Window, ...] = ()
    nag: Nag | None = None
    sparse: Sparse | None = None
    attention: str = ""

    def to(self, device: torch.device | str) -> Cond:
        image, low = (None if each is None else each.to(device) for each in (self.image, self.low_condition))
        nag = None if self.nag is None else self.nag.to(device)
        return replace(
            self,
            condition=self.condition.to(device),
            text=self.text.to(device),
            image=image,
            low_condition=low,
            nag=nag,
        )

    def of(self, low_noise: bool) -> Cond:
        """What one of two experts is given."""
        low = self.low_condition
        return replace(self, condition=low if low_noise and low is not None else self.condition, low_condition=None)

    def in_windows(self, length: int, overlap: int, config: TransformerConfig) -> Cond:
        """The same for a clip that is looked at in windows of ``length`` latent frames."""
        total, found = self.condition.shape[2], []
        for window in places(total, length, overlap):
            if self.image is None:
                found.append(window)
                continue
            last_alone = bool(self.image_row) or not self.condition[0, 0, 0].any()
            found.append(with_rows(window, total, config, self.image.shape[1], self.image_row, last_alone))
        return replace(self, windows=tuple(found))

    def in_window(self, window: Window) -> Cond:
        """What is seen in one of them."""
        image = None if self.image is None else self.image[:, window.row : window.rows]
        condition = self.condition[:, :, window.begin : window.stop]
        return replace(self, condition=condition, image=image, image_row=window.image_row, windows=())


class Transformer(Protocol):
    """What takes the inputs of :class:`wan_local.model.WanTransformer` and gives its velocity."""

    @property
    def config(self) -> TransformerConfig: ...

    def __call__(
        self, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, /, **options: object
    ) -> Tensor: ...


@runtime_checkable
class GuidesItself(Protocol):
    """What combines cond and uncond where its weights are, such as a transformer on several GPUs."""

    @property
    def config(self) -> TransformerConfig: ...

    def guided_velocity(self, conds: Sequence[Cond], guidance: float, /) -> Velocity:
        """As :func:`model_velocity`."""
        ...

    def sides(self, conds: Sequence[Cond], /) -> Sides:
        """As :func:`model_sides`."""
        ...


@runtime_checkable
class ComesItself(Protocol):
    """A model with a keeper of its own, which brings it to its device when its turn in a run begins: since the run
    before, others may have been brought in its place."""

    def come(self) -> None: ...


Model = Transformer | GuidesItself

Sides = Callable[[Tensor, float, int], list[Tensor]]
"""Latents ``[B, C, T, h, w]``, a timestep 0..1000 and a number to the velocities of the same shape under so many of the
prompts: cond alone, or cond and uncond."""


def cond_velocity(transformer: Transformer, cond: Cond) -> Velocity:
    """The velocity under one prompt, of the whole clip at once or in windows.

    Args:
        transformer: the model.
        cond: on the transformer's device.

    Returns:
        velocity of latents ``[B, C, T, h, w]``; the B clips share the prompt.

    Raises:
        InputError: a kernel that can't run here.
    """

    if cond.windows:
        windows = map(Window._make, cond.windows)  # on its way to a process of its own it became a plain tuple
        return fused([(each, cond_velocity(transformer, cond.in_window(each))) for each in windows])
    sparse = None if cond.sparse is None else replace(cond.sparse, given=given_frames(cond.condition))
    attend = choose(cond.attention) if cond.attention else None

    def velocity(latents: Tensor, timestep: float) -> Tensor:
        batch = latents.shape[0]
        joined = torch.cat([latents, cond.condition.expand(batch, -1, -1, -1, -1)], dim=1)  # noise, mask, image
        image = None if cond.image is None else cond.image.expand(batch, -1, -1)
        times = torch.full((batch,), timestep, device=latents.device)
        options: dict[str, object] = {} if cond.image_row is None else {"image_row": cond.image_row}
        if cond.riflex:
            options["riflex"] = True
        if cond.nag is not None:
            options["nag"] = cond.nag.expand(batch)
        if sparse is not None and timestep < sparse.below:
            options["sparse"] = sparse
        if attend is not None:
            options["attend"] = attend
        return transformer(joined, times, cond.text.expand(batch, -1, -1), image, **options)

    return velocity


def given_frames(condition: Tensor) -> tuple[int, ...]:
    """The latent frames in which an image is given, by the mask of a condition ``[1, 4 + z_dim, T, h, w]``."""
    marked = condition[:, :TEMPORAL_STRIDE].ne(0).movedim(2, 0).flatten(1).any(1)  # [T]
    return tuple(marked.nonzero().flatten().tolist())


def model_velocity(model: Model, conds: Sequence[Cond], guidance: float) -> Velocity:
    """The guided velocity of a model, wherever its weights are.

    Args:
        model: a transformer, or what has more than one.
        conds: under the prompt, then under the negative prompt; the second is not used at guidance 1.
        guidance: guidance scale.

    Raises:
        InputError: ``guidance`` is not a finite number.
    """
    if isinstance(model, GuidesItself):
        return model.guided_velocity(conds, guidance)
    views = [cond_velocity(model, cond) for cond in conds]
    return guided_velocity(views[0], views[-1], guidance)


def model_sides(model: Model, conds: Sequence[Cond]) -> Sides:
    """The velocities of a model under each prompt, not combined, wherever its weights are.

    Args:
        model: a transformer, or what has more than one.
        conds: under the prompt, then under the negative prompt if it will be asked for.
    """
    if isinstance(model, GuidesItself):
        return model.sides(conds)
    views = [cond_velocity(model, cond) for cond in conds]
    return lambda latents, timestep, count: [view(latents, timestep) for view in views[:count]]
