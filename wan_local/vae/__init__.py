"""The Wan-VAE: causal video autoencoder, whole, streamed and tiled. Read ``vae.py`` first."""

from .autoencoder import Autoencoder
from .precision import decode_dtype, in_float32
from .tiling import Tiling, decode_tiled, encode_tiled
from .vae import WanVAE

__all__ = ["Autoencoder", "Tiling", "WanVAE", "decode_dtype", "decode_tiled", "encode_tiled", "in_float32"]
