"""Text and images to the embeddings that the transformer reads. The networks are transformers' own; see ``text.py``."""

from .image import ImageEncoder
from .text import TextEncoder

__all__ = ["ImageEncoder", "TextEncoder"]
