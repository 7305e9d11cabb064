"""Weight files of every layout: opened, recognised, checked, loaded, described.

``load.py`` is the story; ``formats/`` reads files, ``detect.py`` tells models apart, ``names.py`` maps names.
"""

from .inspect import Report, inspect
from .load import load_transformer, load_vae
from .load_encoders import load_image_encoder, load_text_encoder

__all__ = ["Report", "inspect", "load_image_encoder", "load_text_encoder", "load_transformer", "load_vae"]
