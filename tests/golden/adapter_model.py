"""The transformer that the files in ``adapters/`` are for."""

from wan_local.config import TransformerConfig

CONFIG = TransformerConfig(
    dim=16, ffn_dim=24, num_heads=1, num_layers=1, text_dim=8, freq_dim=8, text_len=8, image_dim=8, image_tokens=10
)
