"""Starting values for a transformer that is trained from nothing.

Follows Wan2.1 ``wan/modules/model.py`` (init_weights): Xavier for the linears, a small normal for the text
and time networks, zero for the output layer, so that an untrained model predicts exactly zero velocity.
"""

from __future__ import annotations

import torch
from torch import nn

from .transformer import WanTransformer

SMALL = 0.02


@torch.no_grad()
def initialise(model: WanTransformer) -> WanTransformer:
    """Set the weights of ``model`` (torch's own layers) in place from the global generator; return it."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.get_parameter("patch_embedding.weight").flatten(1))
    for network in (model.text_embedding, model.time_embedding):
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=SMALL)
    nn.init.zeros_(model.get_parameter("head.head.weight"))
    return model
