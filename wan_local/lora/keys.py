"""From the names in a LoRA file to the transformer's parameters.

A name is prefix + module + suffix. The prefixes and suffixes below are those that trainers and extractors write
(kohya's and musubi's ``lora_unet_``, LyCORIS, peft, diffusers, ai-toolkit, DiffSynth's ``pipe.dit.``, the extracted
step-distill files with ``diff``, ``diff_b`` and ``diff_m``). The module is in official or in diffusers' names, with
dots or, behind the kohya and LyCORIS prefixes, with underscores. diffusers' ``attn1`` is self-attention and ``attn2``
cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..weights.names import transformer_to_diffusers

DOTTED_PREFIXES = (
    "base_model.model.model.diffusion_model.",
    "base_model.model.diffusion_model.",
    "base_model.model.transformer.",
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "pipe.dit.",
    "unet.",
    "model.",
    "",
)
FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_")

UP, DOWN, ALPHA, MIDDLE = "up", "down", "alpha", "middle"
WEIGHT, BIAS, MODULATION = "weight difference", "bias difference", "modulation difference"
SUFFIXES = {
    ".lora_up.weight": UP, ".lora_down.weight": DOWN, ".lora_mid.weight": MIDDLE,
    ".lora_B.weight": UP, ".lora_A.weight": DOWN,
    ".lora_B.default.weight": UP, ".lora_A.default.weight": DOWN,
    ".lora_B": UP, ".lora_A": DOWN,
    ".lora.up.weight": UP, ".lora.down.weight": DOWN,
    "_lora.up.weight": UP, "_lora.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP, ".lora_linear_layer.down.weight": DOWN,
    ".alpha": ALPHA,
    ".diff": WEIGHT, ".diff_b": BIAS, ".diff_m": MODULATION,
}  # fmt: skip


def split(key: str) -> tuple[str, str] | None:
    """``(name before the suffix, what the tensor is)``; None for a suffix that is not a LoRA's."""
    for suffix, role in SUFFIXES.items():
        if key.endswith(suffix) and len(key) > len(suffix):
            return key[: -len(suffix)], role
    return None


class Names:
    """Every way to write the modules of one transformer.

    Args:
        parameters: its official parameter names.
    """

    def __init__(self, parameters: Iterable[str]) -> None:
        self._parameters = frozenset(parameters)
        self._dotted: dict[str, str] = {}
        for parameter in self._parameters:
            official = _module(parameter)
            self._dotted[official] = official
            if theirs := transformer_to_diffusers(parameter):
                self._dotted[_module(theirs)] = official
        self._flat = {name.replace(".", "_"): official for name, official in self._dotted.items()}

    def parameter(self, name: str, role: str) -> str | None:
        """The official parameter that ``name`` (from :func:`split`) and its role are about; None if there is none."""
        module = self._find(name)
        if module is None:
            return None
        ends = {BIAS: ".bias", MODULATION: ".modulation"}
        # A parameter that belongs to no layer, such as blocks.0.modulation, is its own module here.
        choices = [module + ends[role]] if role in ends else [module + ".weight", module]
        return next((choice for choice in choices if choice in self._parameters), None)

    def _find(self, name: str) -> str | None:
        for prefix in FLAT_PREFIXES:
            if name.startswith(prefix) and (found := self._flat.get(name[len(prefix) :])):
                return found
        for prefix in DOTTED_PREFIXES:
            if name.startswith(prefix) and (found := self._module_or_owner(name[len(prefix) :])):
                return found
        return None

    def _module_or_owner(self, name: str) -> str | None:
        """A layer, or something that only holds layers and parameters, such as ``blocks.0`` or ``head``."""
        if found := self._dotted.get(name):
            return found
        return name if f"{name}.modulation" in self._parameters else None


def _module(parameter: str) -> str:
    """``blocks.0.ffn.0.weight`` -> ``blocks.0.ffn.0``; a parameter without a layer stays whole."""
    stem, _, last = parameter.rpartition(".")
    return stem if last in ("weight", "bias") else parameter
