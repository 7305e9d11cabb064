"""The transformer: mathematics only, official parameter names. Start at ``transformer.py``."""

from .transformer import WanTransformer

__all__ = ["WanTransformer"]
