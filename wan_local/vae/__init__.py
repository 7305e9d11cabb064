"""The Wan-VAE: causal video autoencoder, whole, streamed and tiled."""

from .vae import WanVAE

__all__ = ["WanVAE"]
