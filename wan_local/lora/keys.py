"""From the names in a LoRA file to the transformer's parameters.

A name is prefix + module + suffix. The prefixes and suffixes below are those that trainers and extractors write
(kohya's and musubi's ``lora_unet_``, LyCORIS, peft, diffusers, ai-toolkit, DiffSynth's ``pipe.dit.``, the extracted
step-distill files with ``diff``, ``diff_b`` and ``diff_m``). The module is in official or in diffusers' names, with
dots or, behind the kohya and LyCORIS prefixes, with underscores. diffusers' ``attn1`` is self-attention and ``attn2``
cross-attention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..weights.names import transformer_to_diffusers

PEFT = "base_model.model."
DOTTED_PREFIXES = (
    "base_model.model.model.diffusion_model.",
    "base_model.model.diffusion_model.",
    "base_model.model.transformer.",
    PEFT,
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "pipe.dit.",
    "unet.",
    "model.",
    "",
)
FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_")

UP, DOWN, ALPHA, MIDDLE, UP_BIAS = "up", "down", "alpha", "middle", "bias of up"
WEIGHT, BIAS, MODULATION = "weight difference", "bias difference", "modulation difference"
NEW_WEIGHT, NEW_BIAS = "new weight", "new bias"
LYCORIS_MAGNITUDE, PEFT_MAGNITUDE = "dora_scale", "lora_magnitude_vector"
LOHA = ("hada_w1_a", "hada_w1_b", "hada_t1", "hada_w2_a", "hada_w2_b", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
GLORA = ("a1", "a2", "b1", "b2")
SUFFIXES = {
    ".lora_up.weight": UP, ".lora_down.weight": DOWN, ".lora_mid.weight": MIDDLE,
    ".lora_B.weight": UP, ".lora_A.weight": DOWN, ".lora_B.bias": UP_BIAS,
    ".lora_B": UP, ".lora_A": DOWN,
    ".lora.up.weight": UP, ".lora.down.weight": DOWN,
    "_lora.up.weight": UP, "_lora.down.weight": DOWN,
    ".lora_linear_layer.up.weight": UP, ".lora_linear_layer.down.weight": DOWN,
    ".alpha": ALPHA,
    ".diff": WEIGHT, ".diff_b": BIAS, ".diff_m": MODULATION, ".w_norm": WEIGHT, ".b_norm": BIAS,
    ".set_weight": NEW_WEIGHT, ".base_layer.bias": NEW_BIAS,
    ".dora_scale": LYCORIS_MAGNITUDE,
    ".lora_magnitude_vector.weight": PEFT_MAGNITUDE, ".lora_magnitude_vector": PEFT_MAGNITUDE,
    **{f".{part}": part for part in (*LOHA, *LOKR)},
    **{f".{part}.weight": part for part in GLORA},
}  # fmt: skip
WHOLE = {".weight": NEW_WEIGHT, ".bias": NEW_BIAS}  # what peft trained whole: modules_to_save, and biases
# peft keeps the name of the adapter where somebody saved without its help: lora_A.speed.weight
ADAPTER = re.compile(
    r"\.(?:modules_to_save(?:\.[^.]+)?(?=\.(?:weight|bias)$)"
    r"|(lora_[AB]|lora_magnitude_vector|hada_\w+|lokr_\w+)\.(?!(?:weight|bias)$)[^.]+(?=$|\.(?:weight|bias)$))"
)


def split(key: str) -> tuple[str, str] | None:
    """``(name before the suffix, what the tensor is)``; None for a suffix that is not an adapter's."""
    key = ADAPTER.sub(lambda found: f".{found[1]}" if found[1] else "", key)
    for suffix, role in SUFFIXES.items():
        if key.endswith(suffix) and len(key) > len(suffix):
            return key[: -len(suffix)], role
    stem, dot, leaf = key.rpartition(".")
    return (stem, WHOLE[dot + leaf]) if key.startswith(PEFT) and dot + leaf in WHOLE else None


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
        ends = {BIAS: ".bias", UP_BIAS: ".bias", NEW_BIAS: ".bias", MODULATION: ".modulation"}
        # A parameter that belongs to no layer, such as blocks.0.modulation, is its own module here.
        choices = [module + ends[role]] if role in ends else [module + ".weight", module]
        return next((choice for choice in choices if choice in self._parameters), None)

    def layer(self, key: str) -> str | None:
        """The layer that a name of any kind belongs to; None if the model has nothing of that name."""
        stem = key
        while stem := stem.rpartition(".")[0]:
            found = self._find(stem)
            if found is not None and found in self._dotted:
                return found
        return None

    def is_whole(self, key: str) -> bool:
        """Whether it names a parameter itself, as the file of a model does, and no change of one."""
        return key.endswith(tuple(WHOLE)) and self._find(key.rpartition(".")[0]) in self._dotted

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


def without_prefix(name: str) -> list[str]:
    """What peft may have called the layer ``name`` (from :func:`split`), which its patterns are about."""
    return [name[len(prefix) :] for prefix in DOTTED_PREFIXES if name.startswith(prefix)]


def _module(parameter: str) -> str:
    """``blocks.0.ffn.0.weight`` -> ``blocks.0.ffn.0``; a parameter without a layer stays whole."""
    stem, _, last = parameter.rpartition(".")
    return stem if last in ("weight", "bias") else parameter
