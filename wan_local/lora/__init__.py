"""LoRA files of every layout people have, as changes to the transformer's own parameters. Read ``read.py`` first."""

from .delta import Delta, Difference, LowRank
from .merge import merge
from .read import Lora, read

__all__ = ["Delta", "Difference", "Lora", "LowRank", "merge", "read"]
