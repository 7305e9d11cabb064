"""Numbers to ggml's blocks: the plainest encoder of every block type, for synthetic files.

ggml's own searches for better scales. The ``gguf`` package encodes only the blocks of 32; the rest is packed here, and
``test_packings`` has the package unpack all of it.
"""

from __future__ import annotations

import gguf
import numpy as np

from wan_local.quantised.ggml import FORMATS

LARGE = 256
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "IQ3_S": [0], "IQ3_XXS": [0],
          "IQ2_S": [0], "IQ2_XS": [0], "IQ2_XXS": [0], "IQ1_S": [0], "IQ1_M": [], "TQ1_0": [52], "TQ2_0": [64],
          "MXFP4": []}  # fmt: skip
"""Where the scales of a block stand, if they have two bytes of their own."""
UNENCODED = [kind for kind in FORMATS if not kind.startswith("Q")]
"""Types that are not encoded here; their files get random bits, which are numbers all the same."""


def encode(values: np.ndarray, kind: str) -> np.ndarray:
    """``[rows, n]`` float32 to ``[rows, bytes]`` uint8."""
    if kind in UNENCODED:
        return any_blocks(kind, values.size // FORMATS[kind].values).reshape(values.shape[0], -1)
    if kind not in K_TYPES:
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    blocks = K_TYPES[kind](values.astype(np.float32).reshape(-1, LARGE))
    return blocks.reshape(values.shape[0], -1)


def any_blocks(kind: str, rows: int) -> np.ndarray:
    """``[rows, bytes]`` of random bits, with small scales: random halves would be infinite now and then."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (rows, FORMATS[kind].size), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = rng.normal(size=(rows, 1)).astype(np.float16).view(np.uint8)
    return blocks


def decode(blocks: np.ndarray, kind: str) -> np.ndarray:
    """The package's own way back."""
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).view(np.uint8).reshape(len(values), 2)


def _with_minimum(groups: np.ndarray, levels: int, scale_levels: int) -> tuple[np.ndarray, ...]:
    """Numbers ``[n, groups, size]`` -> d, dmin ``[n]``, scales, minima ``[n, groups]`` and quants."""
    low = np.maximum(-groups.min(-1), 0)
    scale = (groups.max(-1) + low) / levels
    d, dmin = (np.maximum(x.max(-1), 1e-8).astype(np.float16) / np.float16(scale_levels) for x in (scale, low))
    d, dmin = (np.maximum(x, np.float16(6e-8)) for x in (d, dmin))
    scales = np.clip(np.rint(scale / d[:, None].astype(np.float32)), 0, scale_levels)
    minima = np.clip(np.rint(low / dmin[:, None].astype(np.float32)), 0, scale_levels)
    step = np.maximum(d[:, None] * scales, 1e-12)[..., None]
    quants = np.clip(np.rint((groups + (dmin[:, None] * minima)[..., None]) / step), 0, levels)
    return d, dmin, scales.astype(np.uint8), minima.astype(np.uint8), quants.astype(np.uint8)


def _symmetric(groups: np.ndarray, reach: int, scale_reach: int) -> tuple[np.ndarray, ...]:
    """Numbers ``[n, 16, 16]`` -> d ``[n]``, scales ``[n, 16]`` from 0 and quants from 0 (``reach`` is zero)."""
    scale = np.abs(groups).max(-1) / reach
    d = np.maximum((np.maximum(scale.max(-1), 1e-8) / scale_reach).astype(np.float16), np.float16(6e-8))
    scales = np.clip(np.rint(scale / d[:, None].astype(np.float32)), 0, scale_reach)
    step = np.maximum(d[:, None] * scales, 1e-12)[..., None]
    quants = np.clip(np.rint(groups / step), -reach, reach - 1) + reach
    return d, scales.astype(np.int8), quants.astype(np.uint8)


def _six_bits(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """Eight scales and eight minima of 6 bits in 12 bytes."""
    first = (scales[:, :4] & 63) | ((scales[:, 4:] >> 4) << 6)
    second = (minima[:, :4] & 63) | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def _pair_nibbles(quants: np.ndarray) -> np.ndarray:
    """``[n, 8, 32]`` below 16 to 128 bytes."""
    pairs = quants.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)


def _two_bit_planes(quants: np.ndarray) -> np.ndarray:
    """256 values below 4 to 64 bytes."""
    planes = quants.reshape(-1, 2, 4, 32)
    return sum(planes[:, :, i] << (2 * i) for i in range(4)).astype(np.uint8).reshape(-1, 64)


def _one_bit_planes(bits: np.ndarray) -> np.ndarray:
    """256 bits to 32 bytes, group by group."""
    planes = bits.reshape(-1, 8, 32)
    return sum(planes[:, i] << i for i in range(8)).astype(np.uint8)


def _q2_k(x: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, quants = _with_minimum(x.reshape(-1, 16, 16), 3, 15)
    return np.concatenate([scales | (minima << 4), _two_bit_planes(quants), _half(d), _half(dmin)], axis=1)


def _q3_k(x: np.ndarray) -> np.ndarray:
    d, scales, quants = _symmetric(x.reshape(-1, 16, 16), 4, 31)
    six = (scales + 32).astype(np.uint8)
    low = (six[:, :8] & 15) | ((six[:, 8:] & 15) << 4)
    high = sum((six[:, 4 * i : 4 * i + 4] >> 4) << (2 * i) for i in range(4)).astype(np.uint8)
    return np.concatenate([_one_bit_planes(quants >> 2), _two_bit_planes(quants & 3), low, high, _half(d)], axis=1)


def _q4_k(x: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, quants = _with_minimum(x.reshape(-1, 8, 32), 15, 63)
    return np.concatenate([_half(d), _half(dmin), _six_bits(scales, minima), _pair_nibbles(quants)], axis=1)


def _q5_k(x: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, quants = _with_minimum(x.reshape(-1, 8, 32), 31, 63)
    parts = [_half(d), _half(dmin), _six_bits(scales, minima), _one_bit_planes(quants >> 4), _pair_nibbles(quants & 15)]
    return np.concatenate(parts, axis=1)


def _q6_k(x: np.ndarray) -> np.ndarray:
    d, scales, quants = _symmetric(x.reshape(-1, 16, 16), 32, 127)
    halves = (quants & 15).reshape(-1, 2, 2, 64)
    low = (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([low, _two_bit_planes(quants >> 4), scales.view(np.uint8), _half(d)], axis=1)


K_TYPES = {"Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
