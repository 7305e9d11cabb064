"""The layouts weights come in: the table of contents of this folder. A new one is a file here and a line below.

Each file has ``NAME`` and ``open_part(path, part)``, which gives a :class:`~wan_local.weights.source.TensorSource` or
None if ``path`` is not of that layout. What a path is is told from its content, never from its name; ``part`` is one of
``PARTS`` and says which piece of a folder that holds a whole pipeline is meant.
"""

from __future__ import annotations

from types import ModuleType

from . import diffusers_dir, official_dir, single_file

PARTS = ("transformer", "vae", "text_encoder", "image_encoder")
FORMATS: tuple[ModuleType, ...] = (diffusers_dir, official_dir, single_file)
