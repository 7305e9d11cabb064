"""Images in: every kind of file, alpha over black, rotation, and the official resize."""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wan_local import image_kinds, images
from wan_local.errors import InputError
from wan_local.settings import FITS, Fit


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def official_resize(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """As the official code does it: floats in -1..1, bicubic, no antialias."""
    signed = image.clone().sub_(0.5).div_(0.5)
    return F.interpolate(signed[None], size=(height, width), mode="bicubic")[0]


@pytest.mark.parametrize(("size", "target"), [((720, 1280), (1280, 720)), ((100, 150), (160, 112)),
                                              ((33, 47), (64, 48)), ((90, 130), (80, 48))])  # fmt: skip
def test_resize_kernel_is_the_official_one(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = noise(*size)
    ours = images.fit_image(image, *target, fit="stretch") * 2 - 1
    error = (ours - official_resize(image, *target)).abs().max().item()
    print(f"resize {size} -> {target}: largest difference to the official preprocessing {error:.1e}")
    assert error <= 1e-5


def test_same_size_is_untouched_by_every_fit() -> None:
    image = noise(48, 64)
    for fit in FITS:
        assert torch.equal(images.fit_image(image, 64, 48, fit=fit), image)


@pytest.mark.parametrize(("side", "antialias"), [(128, False), (129, True)])
def test_what_shrinks_by_more_than_two_is_antialiased(side: int, antialias: bool) -> None:
    image = noise(side, side)
    ours = images.fit_image(image, 64, 64)
    expected = F.interpolate(image[None], size=(64, 64), mode="bicubic", antialias=antialias)[0]
    other = F.interpolate(image[None], size=(64, 64), mode="bicubic", antialias=not antialias)[0]
    assert torch.equal(ours, expected)
    assert (ours - other).abs().max() > 0.1


def test_strong_shrinking_does_not_alias() -> None:
    board = torch.zeros(1, 512, 512)
    board[:, :, ::2] = 1.0  # one-pixel stripes: their mean is 0.5, four taps can't see that
    shrunk = images.fit_image(board.expand(3, -1, -1), 48, 48)
    assert (shrunk - 0.5).abs().max() < 0.02


def test_crop_keeps_the_middle_and_the_aspect() -> None:
    ramp = torch.linspace(0, 1, 200).expand(3, 100, 200)
    cropped = images.fit_image(ramp, 64, 64, fit="crop")
    assert cropped.shape == (3, 64, 64)
    assert cropped[0, 32].mean() == pytest.approx(0.5, abs=0.01)
    assert cropped[0, 32, -1] - cropped[0, 32, 0] == pytest.approx(0.5, abs=0.02)  # half of the ramp is left


def test_pad_shows_all_over_black() -> None:
    padded = images.fit_image(torch.ones(3, 100, 200), 64, 64, fit="pad")
    assert padded.shape == (3, 64, 64)
    assert torch.allclose(padded[:, 16:48], torch.tensor(1.0))
    assert padded[:, :16].abs().max() == 0
    assert padded[:, 48:].abs().max() == 0


def test_stretch_is_only_on_request() -> None:
    circle = torch.zeros(3, 60, 120)
    circle[:, 20:40, 50:70] = 1.0
    assert images.fit_image(circle, 64, 64, fit="stretch")[0].gt(0.5).any(0).sum() < 14
    with pytest.raises(InputError, match="fit='squash' is not known; use crop, pad, stretch"):
        images.fit_image(circle, 64, 64, fit="squash")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.integers(1, 5), st.sampled_from(FITS))
def test_any_size_fits_any_size(height: int, width: int, rows: int, columns: int, fit: Fit) -> None:
    fitted = images.fit_image(torch.full((3, height, width), 0.25), columns * 16, rows * 16, fit=fit)
    assert fitted.shape == (3, rows * 16, columns * 16)
    if fit == "pad":
        fitted = fitted[fitted > 0]
        assert fitted.numel()
    assert torch.allclose(fitted, torch.tensor(0.25), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9000), (9000, 1), (7, 5001)])
def test_extreme_images_do_not_explode(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 0.5)
    for fit in FITS:
        assert images.fit_image(image, 832, 480, fit=fit).shape == (3, 480, 832)
        assert images.view(image, 832, 480, fit=fit).numel() <= 3 * images.MAX_PIXELS


def test_eight_k_image(tmp_path) -> None:
    Image.new("L", (7680, 4320), 51).save(tmp_path / "big.png")
    fitted = images.fit_image(images.read(tmp_path / "big.png"), 64, 48)
    assert torch.allclose(fitted, torch.tensor(0.2), atol=1e-5)


def test_view_is_the_fitted_part_at_full_resolution() -> None:
    image = noise(100, 300)
    assert torch.equal(images.view(image, 64, 64, "crop"), image[:, :, 100:200])
    assert images.view(image, 64, 64, "pad").shape == (3, 300, 300)
    assert images.view(image, 64, 64, "stretch") is not None
    assert torch.equal(images.view(image, 960, 320, "crop"), image)


# -- files ------------------------------------------------------------------------------------------------------


def save(tmp_path, image: Image.Image, name: str = "image.png", **how: object):
    image.save(tmp_path / name, **how)
    return tmp_path / name


def test_alpha_is_laid_over_black(tmp_path) -> None:
    path = save(tmp_path, Image.new("RGBA", (4, 4), (255, 100, 0, 51)))
    assert torch.allclose(images.read(path)[:, 0, 0], torch.tensor([51.0, 20.0, 0.0]) / 255)
    white = images.read(path, background=(1.0, 1.0, 1.0))
    assert torch.allclose(white[:, 0, 0], torch.tensor([1.0, 224 / 255, 0.8]))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode: str) -> None:
    image = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    path = save(tmp_path, image, "image.jpg" if mode == "YCbCr" else "image.tiff")  # Pillow 10.0 writes no such TIFF
    read = images.read(path)
    assert torch.allclose(images.from_pil(image), torch.ones(3, 4, 6), atol=0.01)
    assert read.shape == (3, 4, 6)
    assert torch.allclose(read, torch.ones(3, 4, 6), atol=0.01)


def test_transparent_palette_is_laid_over_black(tmp_path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    read = images.read(save(tmp_path, image, "image.png", transparency=0))
    assert read[:, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert read[:, 1, 1].tolist() == [0.0, 1.0, 0.0]


def test_sixteen_bit_grey_keeps_its_levels(tmp_path) -> None:
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    read = images.read(save(tmp_path, Image.fromarray(levels)))
    assert torch.allclose(read[0, 0], torch.tensor([0.0, 257 / 65535, 32768 / 65535, 1.0]))


@pytest.mark.parametrize(
    ("full", "dtype"),
    [(1.0, np.float32), (255.0, np.float32), (65535.0, np.float32), (255, np.int32), (65535, np.int32)],
)
def test_an_image_of_32_bit_pixels_keeps_its_range(tmp_path, full: float, dtype: type) -> None:
    pixels = np.array([[0.0, 0.2, 0.6, 1.0]]) * full  # whole numbers in every range but the first
    image = Image.fromarray(pixels.astype(dtype))
    expected = torch.tensor([0.0, 0.2, 0.6, 1.0])
    assert torch.allclose(images.read(save(tmp_path, image, "image.tiff")), expected.expand(3, 1, -1))
    turned = images.read(save(tmp_path, image, "turned.tiff", tiffinfo={0x0112: 6}))
    assert torch.allclose(turned, expected.view(1, -1, 1).expand(3, -1, 1))


@pytest.mark.parametrize(("low", "high", "left"), [(-0.2, 1.2, 1.0), (-50.0, 300.0, 1.0), (0.0, 0.02, 0.02), (0, 0, 0)])
def test_float_pixels_may_overshoot_or_be_dark(tmp_path, low: float, high: float, left: float) -> None:
    pixels = np.array([[low, high]], dtype=np.float32)
    read = images.read(save(tmp_path, Image.fromarray(pixels), "image.tiff"))
    assert torch.allclose(read[:, 0], torch.tensor([0.0, left]).expand(3, -1))
    assert torch.equal(images.from_pil(Image.fromarray(pixels)), read)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 4.0], np.float32), ([0, 1023.0], np.float32), ([0, 1e6], np.float32), ([-1, 1], np.float32),
     ([0, math.nan], np.float32), ([0, 1023], np.int32), ([0, 70_000], np.int32), ([-5, 200], np.int32)],
)  # fmt: skip
def test_32_bit_pixels_of_a_range_that_nobody_can_tell_are_refused(tmp_path, values: list, dtype: type) -> None:
    path = save(tmp_path, Image.fromarray(np.array([values], dtype=dtype)), "image.tiff")
    with pytest.raises(InputError, match=r"image\.tiff has 32-bit .*could be of any range; save it with .*65535"):
        images.read(path)


def test_integers_of_other_files_are_16_bit(tmp_path) -> None:
    """Pillow has them in the same mode as 32-bit ones."""
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 0, 200))
    assert images.read(tmp_path / "dark.pgm")[0, 0, 1] == pytest.approx(200 / 65535)


def test_camera_rotation_is_applied(tmp_path) -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    path = save(tmp_path, image, "image.png", exif=exif)
    for read in (images.read(path), images.to_tensor(Image.open(path))):
        assert read.shape == (3, 8, 4)
        assert read[0, 0, 3] == 1.0


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "CMYK"])
def test_a_plain_tiff_is_turned_and_not_scrambled(tmp_path, mode: str) -> None:
    """Pillow maps such a file into memory, at the size that it has when upright."""
    ramp = np.arange(60 * 40).reshape(40, 60)
    if mode == "I;16":
        image = Image.fromarray((ramp * 20).astype(np.uint16))
    else:
        image = Image.fromarray((ramp // 10).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = images.read(save(tmp_path, image, "scan.tif", exif=exif))
    upright = images.read(save(tmp_path, image, "plain.tif")).rot90(-1, (1, 2))
    assert torch.equal(found, upright)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not a known image format"), (b"hello", "not a known image format"), (b"\x89PNG\r\n\x1a\n\0\0", "")],
)
def test_unreadable_file_is_named(tmp_path, content: bytes, reason: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.png can't be read as an image") as caught:
        images.read(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


KINDS = {
    "HEIC": b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "AVIF": b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif",
    "PSD": b"8BPS\0\1", "EXR": b"v/1\x01\2\0", "JPEG XL": b"\xff\x0a\xfa", "ICO": b"\0\0\1\0\1\0", "DDS": b"DDS |\0",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>', "PDF": b"%PDF-1.7", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0",
    "a web page": b"\n<!DOCTYPE html><html></html>", "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_not_read_is_named_whatever_the_name_says(
    kind: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_kinds, "HEIF", "no_such_module")
    monkeypatch.delitem(image_kinds.FORMATS, "AVIF")
    path = tmp_path / "image.jpg"
    path.write_bytes(KINDS[kind] + bytes(64))
    with pytest.raises(InputError, match=rf"image\.jpg is {kind}, which can't be read here: .+\. Read are PNG, "):
        images.read(path)


def test_every_message_says_which_kinds_are_read(tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"hello")
    with pytest.raises(InputError, match="read are PNG, JPEG, WebP, TIFF, BMP, GIF,"):
        images.read(tmp_path / "x.png")
    assert ("HEIC" in image_kinds.readable()) == image_kinds.reads_heif()


@pytest.mark.parametrize("name", ["photo.heic", "photo.jpg"])
def test_images_of_phones_are_read_upright(tmp_path, name: str) -> None:
    heif = pytest.importorskip("pillow_heif")
    whole = np.zeros((48, 64, 3), np.uint8)
    whole[:24, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(whole).transpose(Image.Transpose.ROTATE_90)
    heif.from_pillow(turned).save(tmp_path / "made.heic", quality=100, exif=exif.tobytes())
    (tmp_path / "made.heic").rename(tmp_path / name)
    read = images.read(tmp_path / name)
    assert read.shape == (3, 48, 64)
    assert (read - torch.from_numpy(whole).permute(2, 0, 1) / 255).abs().mean() < 0.02
    assert "HEIC" in image_kinds.readable()


def test_truncated_file_is_refused(tmp_path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole, "PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:3000])
    with pytest.raises(InputError, match=r"half\.png can't be read"):
        images.read(tmp_path / "half.png")


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png is not there"):
        images.read(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is a folder"):
        images.read(tmp_path)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bomb_is_refused_unread(tmp_path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.png .*at most 100,000,000 (pixels )?are read"):
        images.read(tmp_path / "bomb.png")


# -- tensors ----------------------------------------------------------------------------------------------------


def test_both_layouts_and_types_mean_the_same() -> None:
    image = noise(5, 6).mul(255).round().div(255)
    same = [
        image,
        image.permute(1, 2, 0),
        image.permute(1, 2, 0)[None],
        image.numpy(),
        image.mul(255).round().to(torch.uint8),
        Image.fromarray(image.mul(255).round().byte().permute(1, 2, 0).numpy()),
    ]
    for other in same:
        assert torch.allclose(images.to_tensor(other), image)
    assert torch.equal(images.to_tensor(image[:1]), image[:1].expand(3, -1, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 4, 4), -1.0), r"values -1\.\.-1; give floats 0\.\.1"),
        (torch.full((3, 4, 4), 200.0), r"values 200\.\.200"),
        (torch.full((3, 4, 4), float("nan")), "values nan"),
        (torch.zeros(2, 3, 4, 4), r"shape \[2, 3, 4, 4\]"),
        (torch.zeros(3, 0, 4), r"shape \[3, 0, 4\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "dtype torch.int64"),
        (17, "is a int"),
    ],
)
def test_what_is_no_image_is_refused(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        images.to_tensor(image, "first")  # type: ignore[arg-type]
