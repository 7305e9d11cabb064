"""LoRA files of every layout people have, as changes to the transformer's own parameters. Read ``read.py`` first."""

from .apply import Applied, Use, apply, merged_bytes
from .beside import Beside
from .decomposed import Decomposed, General
from .delta import Delta, Difference, LowRank, Replacement
from .merge import merge
from .products import Hadamard, Kronecker, Tucker
from .read import Lora, read

__all__ = [
    "Applied", "Beside", "Decomposed", "Delta", "Difference", "General", "Hadamard", "Kronecker", "Lora", "LowRank",
    "Replacement", "Tucker", "Use", "apply", "merge", "merged_bytes", "read",
]  # fmt: skip
