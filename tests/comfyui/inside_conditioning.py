"""What is connected to CONDITIONING and LATENT sockets; inside ComfyUI's interpreter."""

from __future__ import annotations

from typing import Any

from inside_checks import check, lib, refusal
from inside_model import IMAGE, ROWS, TEXT, small_transformer


def conditioning(nodes: Any, grid: Any, **values: Any) -> list[Any]:
    import torch

    frames, height, width = grid.latent_shape
    mask = torch.ones(1, 4, frames, height, width)
    mask[:, :, 0] = mask[:, 3, -1] = 0.0
    entry = {
        "concat_latent_image": torch.zeros(1, 16, frames, height, width),
        "concat_mask": mask,
        "clip_vision_output": nodes.host.clip_vision_output(penultimate_hidden_states=torch.zeros(1, ROWS, IMAGE)),
    }
    return [[torch.zeros(1, 512, TEXT), {k: v for k, v in (entry | values).items() if v is not None}]]


@check
def what_a_sampler_can_not_use_is_refused_in_one_line(nodes: Any) -> None:
    import torch

    config = small_transformer(nodes).config
    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    good = conditioning(nodes, grid)
    cases = {
        "no first and last frame": conditioning(nodes, grid, concat_latent_image=None),
        "no image encoder output": conditioning(nodes, grid, clip_vision_output=None),
        "latent is 3x6x8 and the images in positive are 5x6x8": conditioning(
            nodes, grid, concat_latent_image=torch.zeros(1, 16, 5, 6, 8)
        ),
        "holds 2 prompts": good * 2,
        "carries control": conditioning(nodes, grid, control=object()),
        "carries start_percent/end_percent": conditioning(nodes, grid, start_percent=0.5),
        "takes 4096 values a token": [[torch.zeros(1, 77, 768), good[0][1]]],
    }
    for part, bad in cases.items():
        message = refusal(nodes.sockets.conditioning.read, bad, "positive", config, grid.latent_shape)
        assert part in message, (part, message)
        assert "\n" not in message
    read = nodes.sockets.conditioning.read(good, "positive", config, grid.latent_shape)
    assert read.condition.shape == (1, 20, 3, 6, 8)
    known = read.condition[0, :4, :, 0, 0].tolist()
    assert known == [[1, 0, 0]] * 3 + [[1, 0, 1]], "core's mask is 1 where unknown, the transformer's where known"
    latents = {
        "latent has shape [1, 4, 8, 8]": {"samples": torch.zeros(1, 4, 8, 8)},
        "noise mask": {"samples": torch.zeros(1, 16, 3, 6, 8), "noise_mask": torch.ones(1)},
        "height=56 is not a multiple of 16": {"samples": torch.zeros(1, 16, 3, 7, 8)},
    }
    for part, latent in latents.items():
        message = refusal(nodes.sockets.latent.clip_of, latent, config)
        assert part in message, (part, message)


@check
def a_model_without_image_branch_needs_no_image_encoder(nodes: Any) -> None:
    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    config = small_transformer(nodes, image_dim=0, image_tokens=0).config
    given = conditioning(nodes, grid, clip_vision_output=None)
    read = nodes.sockets.conditioning.read(given, "positive", config, grid.latent_shape)
    assert read.image is None


@check
def how_many_images_a_model_sees_is_its_own_affair(nodes: Any) -> None:
    """Rows of both images, from our node or core's: both for weights with positions, the first's for others."""
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    three = torch.randn(1, 3 * 257, IMAGE)
    first, _, last = three.split(257, dim=1)

    def seen(rows: Any, **sizes: int) -> Any:
        config = small_transformer(nodes, **sizes).config
        output = nodes.host.clip_vision_output(penultimate_hidden_states=rows)
        given = conditioning(nodes, grid, clip_vision_output=output)
        return nodes.sockets.conditioning.read(given, "positive", config, grid.latent_shape).image

    both = torch.cat([first, last], dim=1)
    assert torch.equal(seen(both), both)
    assert torch.equal(seen(both, image_tokens=0), first)
    assert torch.equal(seen(first, image_tokens=0), first)
    assert torch.equal(seen(three), both), "of an image in the middle too"
    assert torch.equal(seen(three, image_tokens=0), first)
    message = refusal(seen, first)
    assert "output of one image and this model takes that of both" in message, message


@check
def one_image_of_two_is_the_one_that_the_mask_says(nodes: Any) -> None:
    """From core's node too, which does not say whose its embeddings are; and no image is no rows."""
    import torch

    grid = lib(nodes, "shapes").Grid(frames=9, height=48, width=64)
    config = small_transformer(nodes).config
    rows = torch.randn(1, 257, IMAGE)

    def seen(*channels: tuple[int, int], rows: Any = rows) -> Any:
        mask = torch.ones(1, 4, 3, 6, 8)
        for channel, group in channels:
            mask[:, channel, group] = 0.0
        output = None if rows is None else nodes.host.clip_vision_output(penultimate_hidden_states=rows)
        given = conditioning(nodes, grid, concat_mask=mask, clip_vision_output=output)
        found = nodes.sockets.conditioning.read(given, "positive", config, grid.latent_shape)
        return found.image, found.image_row

    start, end = [(channel, 0) for channel in range(4)], [(3, 2)]
    assert seen(*start)[1] == 0
    assert seen(*end)[1] == 257
    assert torch.equal(seen(*end)[0], rows)
    none, row = seen((3, 1), rows=None)
    assert none.shape == (1, 0, IMAGE)
    assert row is None
    assert "holds no image encoder output" in refusal(lambda: seen(*end, rows=None))
