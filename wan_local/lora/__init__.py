"""LoRA files of every layout people have, as changes to the transformer's own parameters. Read ``read.py`` first."""

from .apply import Applied, Use, apply, merged_bytes
from .beside import Beside
from .delta import Delta, Difference, LowRank
from .merge import merge
from .read import Lora, read

__all__ = [
    "Applied", "Beside", "Delta", "Difference", "Lora", "LowRank", "Use", "apply", "merge", "merged_bytes", "read",
]  # fmt: skip
