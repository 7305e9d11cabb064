"""What is connected to an IMAGE socket; inside ComfyUI's interpreter."""

from __future__ import annotations

import logging
from typing import Any

from inside_checks import check


@check
def half_precision_images_are_taken(nodes: Any) -> None:
    import torch

    image = torch.rand(1, 9, 7, 3)
    got = nodes.sockets.image.one_image(image.half(), "first_image")
    assert got.dtype == torch.float32
    assert got.shape == (3, 9, 7)
    assert (got - image[0].movedim(-1, 0)).abs().max() < 1e-3


@check
def transparency_is_laid_over_black(nodes: Any) -> None:
    import torch

    image = torch.ones(1, 4, 4, 4)
    image[..., 3] = 0.25
    got = nodes.sockets.image.one_image(image, "first_image")
    assert got.shape == (3, 4, 4)
    assert torch.allclose(got, torch.full_like(got, 0.25))


@check
def the_first_image_of_a_batch_is_used_and_the_log_says_so(nodes: Any) -> None:
    import torch

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    nodes.host.log.addHandler(handler)
    batch = torch.stack([torch.full((4, 4, 3), value) for value in (0.1, 0.9)])
    got = nodes.sockets.image.one_image(batch, "last_image")
    nodes.host.log.removeHandler(handler)
    assert torch.allclose(got, torch.full_like(got, 0.1))
    assert lines == ["last_image is a batch of 2 images; the first one is used"]


@check
def values_that_are_no_numbers_are_refused_by_name(nodes: Any) -> None:
    import torch

    image = torch.rand(1, 4, 4, 3)
    image[0, 1, 1, 1] = float("nan")
    message = ""
    try:
        nodes.sockets.image.one_image(image, "last_image")
    except ValueError as error:
        message = str(error)
    assert "last_image" in message
    assert "\n" not in message


@check
def values_that_overshoot_are_clamped(nodes: Any) -> None:
    import torch

    got = nodes.sockets.image.one_image(torch.tensor([-0.5, 0.5, 1.5]).expand(1, 2, 2, 3), "first_image")
    assert got[:, 0, 0].tolist() == [0.0, 0.5, 1.0]
