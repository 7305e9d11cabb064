"""The Wan-VAE: causal video autoencoder, whole, streamed and tiled. Read ``vae.py`` first."""

from .precision import decode_dtype
from .tiling import Tiling, decode_tiled, encode_tiled
from .vae import WanVAE

__all__ = ["Tiling", "WanVAE", "decode_dtype", "decode_tiled", "encode_tiled"]
