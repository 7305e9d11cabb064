"""Decoding inside ComfyUI where memory runs out: every door goes on in tiles, and what can't be decoded is kept."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inside_checks import bundled, check, lib, refusal

SIZE = {"width": 32, "height": 144, "length": 5}  # 4 x 18 cells: one tile of 128 pixels is less than a frame
TILE = 4 * 16  # cells of such a tile
CHOICES = {"negative_prompt": "", "fps": 8.0, "seed": 1, "steps": 1, "guidance": 1.0, "shift": 5.0, "sampler": "euler"}


def latents(batch: int = 1) -> Any:
    import torch

    return torch.randn(batch, 16, 2, 18, 4, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def room_for(vae: Any, cells: int) -> Iterator[list[int]]:
    """A GPU on which the VAE of a socket can decode so many latent cells at once; the sizes it was asked for."""
    import torch

    network, asked = vae.first_stage_model, []
    real = network.decode_stream

    def limited(latents: Any) -> Any:
        size = latents.shape[-1] * latents.shape[-2]
        asked.append(size)
        if size > cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        yield from real(latents)

    network.decode_stream = limited
    try:
        yield asked
    finally:
        del network.decode_stream


@contextlib.contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """Output and input folders of a moment."""
    import folder_paths

    before = folder_paths.get_output_directory(), folder_paths.get_input_directory()
    with tempfile.TemporaryDirectory() as output, tempfile.TemporaryDirectory() as inputs:
        folder_paths.set_output_directory(output)
        folder_paths.set_input_directory(inputs)
        try:
            yield Path(output), Path(inputs)
        finally:
            folder_paths.set_output_directory(before[0])
            folder_paths.set_input_directory(before[1])


def local(nodes: Any, parts: Any, **more: Any) -> Any:
    import torch

    images = torch.rand(2, 1, 144, 32, 3, generator=torch.Generator().manual_seed(2))
    model, clip, clip_vision, vae = parts
    return nodes.local.WanFLF2VLocal.execute(
        model, clip, vae, first_image=images[0], last_image=images[1], prompt="a disc", clip_vision=clip_vision,
        **SIZE, **CHOICES, **more,
    )  # fmt: skip


def decode(nodes: Any, vae: Any, samples: Any, tiling: str = "auto") -> Any:
    return nodes.decode.WanFLF2VDecode.execute(vae, {"samples": samples}, 8.0, tiling).args[0]


@check
def every_door_goes_on_in_tiles_when_whole_frames_do_not_fit(nodes: Any) -> str:
    import torch

    import nodes as core

    parts = nodes.loading.load_parts(bundled(nodes), "fp32", "auto")
    vae, given = parts[3], latents(batch=2)
    vae.vae_dtype = torch.float32
    doors = {
        "Decode": lambda: decode(nodes, vae, given),
        "VAEDecode": lambda: core.VAEDecode().decode(vae, {"samples": given})[0],
        "VAEDecodeTiled": lambda: core.VAEDecodeTiled().decode(vae, {"samples": given}, 144, 32)[0],
        "Local": lambda: local(nodes, parts).args[0],
    }
    worst = 0.0
    for name, door in doors.items():
        whole = door()
        with room_for(vae, TILE) as asked:
            tiled = door()
        assert max(asked) > TILE, (name, asked)
        assert min(asked) == TILE, (name, asked)
        assert tiled.shape == whole.shape == (5 if name == "Local" else 10, 144, 32, 3), (name, tiled.shape)
        worst = max(worst, (tiled - whole).abs().mean().item())
    assert worst < 0.1, worst
    return f"tiles and whole frames differ by {worst:.3f} on average at most"


@check
def cores_own_vae_gets_smaller_tiles_from_our_decode(nodes: Any) -> None:
    import torch

    asked: list[int] = []

    class Core:
        def decode(self, samples: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        def decode_tiled(self, samples: Any, tile_x: int, tile_y: int, overlap: int) -> Any:
            asked.append(tile_x)
            if tile_x > 16:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return torch.full((1, 5, 272, 264, 3), 0.25)

    images = decode(nodes, Core(), torch.zeros(1, 16, 2, 34, 33))
    assert images.shape == (5, 272, 264, 3)
    assert torch.allclose(images, torch.full_like(images, 0.25))
    assert asked == [32, 16]


@check
def a_run_that_can_not_be_decoded_is_kept_and_can_be_gone_on_with(nodes: Any) -> None:
    import torch

    import nodes as core

    parts = nodes.loading.load_parts(bundled(nodes), "fp32", "auto")
    vae = parts[3]
    vae.vae_dtype = torch.float32
    expected = local(nodes, parts).args[0]
    with folders() as (output, inputs):
        message = ""
        with room_for(vae, 0):
            try:
                local(nodes, parts)
            except lib(nodes, "errors").DecodeError as error:
                message = str(error)
        (kept,) = output.rglob("*.latents.safetensors")
        (loadable,) = inputs.iterdir()
        assert "even in tiles of 128 pixels" in message, message
        assert str(kept) in message, message
        assert message.endswith("--fps 8"), message
        assert "Load Latent" in message, message
        assert loadable.name in message, message
        assert loadable.name in core.LoadLatent.INPUT_TYPES()["required"]["latent"][0]
        loaded = core.LoadLatent().load(loadable.name)[0]["samples"]
        assert (decode(nodes, vae, loaded) - expected).abs().max() < 1e-4
        found = lib(nodes, "kept").read(kept)
        assert torch.allclose(vae.first_stage_model.denormalise(found), loaded, atol=1e-5)


@check
def every_door_keeps_what_it_could_not_decode(nodes: Any) -> None:
    import nodes as core

    vae = nodes.loading.load_vae(bundled(nodes), "fp32")
    doors = (
        lambda: decode(nodes, vae, latents()),
        lambda: decode(nodes, vae, latents(), "off"),
        lambda: core.VAEDecode().decode(vae, {"samples": latents()}),
        lambda: core.VAEDecodeTiled().decode(vae, {"samples": latents()}, 128, 32),
    )
    with folders() as (output, inputs), room_for(vae, 0):
        for number, door in enumerate(doors, start=1):
            with contextlib.suppress(lib(nodes, "errors").DecodeError):
                door()
                raise AssertionError("it was decoded")
            assert len(list(output.rglob("*.latents.safetensors"))) == number
            assert len(list(inputs.iterdir())) == number


@check
def what_is_stopped_is_kept_only_where_nobody_else_has_it(nodes: Any) -> None:
    import comfy.model_management as management

    parts = nodes.loading.load_parts(bundled(nodes), "fp32", "auto")
    vae = parts[3]

    def stop(latents: Any) -> Any:
        raise management.InterruptProcessingException

    vae.first_stage_model.decode_stream = stop

    def stopped(door: Callable[[], Any], files: int) -> None:
        try:
            door()
        except management.InterruptProcessingException:
            pass
        else:
            raise AssertionError("the stop was swallowed")
        assert len(list(output.rglob("*.latents.safetensors"))) == files

    with folders() as (output, _):
        stopped(lambda: decode(nodes, vae, latents()), 0)
        stopped(lambda: local(nodes, parts), 1)
        del vae.first_stage_model.decode_stream
        real, nodes.repairs.ends.repair_to = nodes.repairs.ends.repair_to, lambda *given, **more: stop(None)
        try:
            stopped(lambda: local(nodes, parts, repair="exact"), 2)
        finally:
            nodes.repairs.ends.repair_to = real


@check
def a_repair_that_no_image_allows_is_refused_before_anything_is_made(nodes: Any) -> None:
    import torch

    weak = nodes.sockets.keyframes.Keyframe(images=torch.rand(1, 3, 144, 32), frame=4, strength=0.9)
    said = refusal(
        lambda: nodes.local.WanFLF2VLocal.execute(
            None, None, None, keyframes=(weak,), prompt="a disc", repair="colour", **SIZE, **CHOICES
        )
    )
    assert said.startswith("repair=colour needs an image of full strength; give the first, the last or a keyframe"), (
        said
    )


@check
def latents_of_another_kind_are_refused_and_not_kept(nodes: Any) -> None:
    import torch

    vae = nodes.loading.load_vae(bundled(nodes), "fp32")
    with folders() as (output, _):
        assert "this VAE decodes" in refusal(vae.decode, torch.zeros(1, 4, 8, 8))
        assert not list(output.rglob("*.*"))


def asked_of_the_host(nodes: Any, door: Callable[..., Any], *given: Any) -> int:
    """Bytes that a door wants room for besides its weights; it goes no further."""

    class Asked(Exception):
        pass

    def load(patcher: Any, work: int = 0, **how: Any) -> None:
        raise Asked(work)

    real, nodes.host.load = nodes.host.load, load
    try:
        door(*given)
    except Asked as error:
        (work,) = error.args
        return work
    finally:
        nodes.host.load = real
    raise AssertionError("the host was not asked")


@check
def the_host_is_asked_for_what_calculating_takes(nodes: Any) -> str:
    """Counted while our own code runs, for both precisions: less overflows a GPU, more leaves weights offloaded."""
    import torch

    live, activations = lib(nodes, "memory.live"), lib(nodes, "memory.activations")
    said = []
    for dtype in ("fp32", "bf16"):
        vae = nodes.loading.load_vae(bundled(nodes), dtype)
        given = torch.zeros(1, 16, activations.LONGEST, 10, 12, dtype=vae.vae_dtype)
        asked = asked_of_the_host(nodes, list, nodes.sockets.vae.autoencoder(vae, "off").decode_stream(given))
        with torch.inference_mode(False), torch.no_grad(), live.LiveBytes() as count:
            for _ in vae.first_stage_model.decode_stream(given):
                pass
        said.append((asked - activations.RESERVE) / count.peak)
    model = nodes.loading.load_model(bundled(nodes), "fp32", "auto")
    grid = lib(nodes, "shapes").Grid(frames=17, height=96, width=128)
    work = activations.transformer_work(model.transformer.config, grid, 4)
    said.append((asked_of_the_host(nodes, model.load, grid) - activations.RESERVE) / work)
    assert all(0.95 < share < 1.25 for share in said), said  # the host's layers copy a weight for a call
    return "asked for / counted: " + ", ".join(f"{share:.2f}" for share in said)
