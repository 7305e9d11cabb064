"""Weights that are smaller than the numbers they stand for, dequantized layer by layer when they are used.

``packing.py`` says what every kind has in common, ``float8.py``, ``int8.py``, ``block_scaled.py`` and ``ggml.py`` are
the kinds, ``layers.py`` the layers that keep them. Which file holds which kind is told in ``weights/``, not here.
"""

from .block_scaled import MXFP8, NVFP4
from .float8 import Float8
from .ggml import GGML
from .int8 import Int8
from .layers import CastingLayers, Embedding, Linear, multiplies_in_float8, small_product
from .matmul import float8_linear, shared_inputs
from .packing import Packing, is_packed, packing_of, parameter_shapes

__all__ = [
    "GGML", "MXFP8", "NVFP4", "CastingLayers", "Embedding", "Float8", "Int8", "Linear", "Packing", "float8_linear",
    "is_packed", "multiplies_in_float8", "packing_of", "parameter_shapes", "shared_inputs", "small_product",
]  # fmt: skip
