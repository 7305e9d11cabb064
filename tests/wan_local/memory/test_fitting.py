"""Memory that runs out while the VAE works: made up at a size or at a call, on the way that every decode goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from wan_local.config import VAEConfig
from wan_local.errors import Cancelled, NumericError, OutOfMemory
from wan_local.frames import collect, frames_of
from wan_local.free_memory import is_out_of_memory
from wan_local.memory import DeviceMemory, FittingVAE
from wan_local.memory.tiles import of_side
from wan_local.progress import Progress
from wan_local.vae import decode_tiled

LATENTS = torch.randn(1, 16, 5, 17, 33, generator=torch.Generator().manual_seed(0))
FRAMES, CELL = 17, 8


class SmallGPU:
    """Looks like a VAE, on a GPU that holds ``cells`` latent cells at once, and nothing at a call of your choice.

    Every cell decodes to its own value and a bit of the mean of all that was in the network with it, as attention in
    a real one does: tiles show.
    """

    config = VAEConfig(dim=2, num_res_blocks=1)
    output_stride = CELL

    def __init__(self, cells: int = 10**9, fails_at: int = -1, shift: float = 0.0) -> None:
        self.cells, self.fails_at, self.shift, self.calls = cells, fails_at, shift, 0
        self.sizes: list[tuple[int, int]] = []  # of frames or tiles, as they were begun
        self.dtypes: list[torch.dtype] = []  # of what it was given

    def parameters(self) -> Iterator[Tensor]:
        return iter([torch.zeros(1)])

    def _begin(self, height: int, width: int) -> None:
        self.sizes.append((height, width))
        if height * width > self.cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    def decode_stream(self, latents: Tensor) -> Iterator[Tensor]:
        self._begin(*latents.shape[-2:])
        self.dtypes.append(latents.dtype)
        for at in range(latents.shape[2]):
            self.calls += 1
            if self.calls == self.fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
            z = latents[:, :3, at : at + 1] * 0.3 + latents.mean() + self.shift
            pixels = z.repeat_interleave(CELL, 3).repeat_interleave(CELL, 4).clamp(-1, 1)
            yield pixels.expand(-1, -1, 1 if at == 0 else 4, -1, -1)

    def encode_stream(self, video: Tensor) -> Iterator[Tensor]:
        self._begin(video.shape[-2] // CELL, video.shape[-1] // CELL)
        self.dtypes.append(video.dtype)
        for start in (0, *range(1, video.shape[2], 4)):
            yield video[:, :1, start : start + 1, ::CELL, ::CELL].expand(-1, 16, -1, -1, -1)


def made(**how: Any) -> Any:
    return SmallGPU(**how)


def images(chunks: Iterator[Tensor]) -> Tensor:
    """``[F, H, W, 3]`` in 0..1 of ``[1, 3, n, H, W]`` in -1..1."""
    return (torch.cat(list(chunks), dim=2)[0].permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1)


def test_whole_frames_that_fit_are_whole() -> None:
    vae = made()
    frames = collect(frames_of(FittingVAE(vae), LATENTS), FRAMES)
    assert torch.equal(frames, images(vae.decode_stream(LATENTS)))
    assert vae.sizes[0] == (17, 33)
    assert len(vae.sizes) == 2


@pytest.mark.parametrize(("cells", "side"), [(17 * 32, 32), (16 * 16, 16)])
def test_out_of_memory_begins_again_in_tiles_that_fit(cells: int, side: int) -> None:
    vae, notes = made(cells=cells), []

    def tell(progress: Progress) -> None:
        if progress.note:
            notes.append(progress.note)

    frames = collect(frames_of(FittingVAE(vae), LATENTS, tell), FRAMES)
    assert torch.equal(frames, images(decode_tiled(vae, LATENTS, of_side(side))))
    tried = ["whole frames", "tiles of 256 pixels", "tiles of 128 pixels"]
    steps = list(zip(tried, tried[1:], strict=False))[: 1 if side == 32 else 2]
    assert notes == [f"out of memory with {one}; beginning again in {next_one}" for one, next_one in steps]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_nothing_has_been_given_away_while_memory_still_grows(fails_at: int) -> None:
    """Out of memory in the first latent frames: the clip is all tiles, with no change of look in the middle."""
    vae = made(fails_at=fails_at)
    frames = collect(frames_of(FittingVAE(vae), LATENTS), FRAMES)
    assert torch.equal(frames, images(decode_tiled(vae, LATENTS, of_side(32))))


@pytest.mark.parametrize("fails_at", [4, 5, 7])
def test_frames_that_were_given_away_are_not_given_again(fails_at: int) -> None:
    """Another program takes the memory in the midst of it; a film that is being written can't be begun again."""
    vae = made(fails_at=fails_at)
    whole = images(made().decode_stream(LATENTS))
    chunks = list(frames_of(FittingVAE(vae), LATENTS))
    assert [len(chunk) for chunk in chunks] == [1, 4, 4, 4, 4]
    given = {4: 9, 5: 13, 7: 17}[fails_at]
    assert torch.equal(torch.cat(chunks)[:given], whole[:given])


def test_each_try_asks_for_its_own_room_and_lets_go_before_the_next() -> None:
    log: list[Any] = []

    class Told(DeviceMemory):
        def ready(self, work: int) -> None:
            log.append(work)

        def release(self) -> None:
            log.append("release")

    vae = made(cells=256)
    list(FittingVAE(vae, memory=Told(vae)).decode_stream(LATENTS))
    works = [entry for entry in log if entry != "release"]
    assert [entry == "release" for entry in log] == [False, True, False, True, False]
    assert works == sorted(works, reverse=True)
    assert len(set(works)) == 3


def test_tensors_of_a_failed_try_are_gone_when_the_next_begins() -> None:
    import gc
    import weakref

    class TensorPlaces(FittingVAE):
        def decode_once(self, latents: Tensor, way: Any, on_progress: Any) -> Iterator[Tensor]:
            if way is None:
                large = torch.zeros(1000)
                kept.append(weakref.ref(large))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().decode_once(latents, way, on_progress)

    class Looked(DeviceMemory):
        def release(self) -> None:
            alive.append(kept[0]() is not None)

    kept: list[Any] = []
    alive: list[bool] = []
    gc.disable()
    try:
        list(TensorPlaces(made(), memory=Looked(made())).decode_stream(LATENTS))
    finally:
        gc.enable()
    assert alive == [False]


def test_what_does_not_fit_at_all_is_one_line() -> None:
    with pytest.raises(OutOfMemory, match="decoding ran out of memory even in tiles of 128 pixels; close what else"):
        list(frames_of(FittingVAE(made(cells=1)), LATENTS))


def test_off_never_cuts_and_a_side_begins_there() -> None:
    vae = made(cells=256)
    with pytest.raises(OutOfMemory, match="ran out of memory and tiling is off; set tiling to auto"):
        list(frames_of(FittingVAE(vae, "off"), LATENTS))
    assert vae.sizes == [(17, 33)]
    vae = made(cells=256)
    list(frames_of(FittingVAE(vae, 192), LATENTS))
    assert vae.sizes[:2] == [(17, 24), (16, 16)]


def test_other_failures_are_not_tried_again() -> None:
    vae = made(shift=float("nan"))
    with pytest.raises(NumericError, match="decoded frame 0 to NaN"):
        list(frames_of(FittingVAE(vae), LATENTS))

    class Broken(FittingVAE):
        def decode_once(self, *_: Any) -> Iterator[Tensor]:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        list(Broken(made()).decode_stream(LATENTS))


def test_a_stop_in_the_midst_of_tiles_is_at_once() -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 7:
            raise Cancelled

    vae = made()
    with pytest.raises(Cancelled):
        list(FittingVAE(vae, 128).decode_stream(LATENTS, stop))
    assert vae.calls == 7


def test_encoding_falls_back_too() -> None:
    video = torch.rand(1, 3, 9, 136, 264) * 2 - 1
    vae, told = made(cells=17 * 32), []
    latents = FittingVAE(vae).encode(video, lambda progress: told.append(progress.stage))
    assert latents.shape == (1, 16, 3, 17, 33)
    assert (17, 32) in vae.sizes
    assert set(told) == {"encode images"}
    with pytest.raises(OutOfMemory, match="encoding the images ran out of memory even in tiles of 128 pixels"):
        FittingVAE(made(cells=1)).encode(video)


@pytest.mark.parametrize("tiling", ["off", 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, None])
def test_it_encodes_in_float32_and_decodes_in_what_was_chosen(dtype: torch.dtype | None, tiling: str | int) -> None:
    """Whatever the dtype of what it is given; with none chosen, in that of the latents."""
    vae = made()
    autoencoder = FittingVAE(vae, tiling, dtype)
    autoencoder.encode(torch.zeros(1, 3, 1, 64, 64, dtype=torch.float16))
    assert set(vae.dtypes) == {torch.float32}
    vae.dtypes.clear()
    chunks = list(autoencoder.decode_stream(LATENTS[:, :, :1].half()))
    assert set(vae.dtypes) == {dtype or torch.float16}
    assert {chunk.dtype for chunk in chunks} == {torch.float32}


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory
