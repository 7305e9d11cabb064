"""The tensors that a file has about one parameter, to one change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import UnreadableWeights
from . import keys
from .decomposed import Decomposed, General
from .delta import Delta, Difference, LowRank, Replacement
from .products import Factors, Hadamard, Kronecker, Tucker

MAGNITUDES = (keys.LYCORIS_MAGNITUDE, keys.PEFT_MAGNITUDE)
DIFFERENCES = (keys.WEIGHT, keys.BIAS, keys.MODULATION, keys.UP_BIAS)
KINDS = {  # what each is made of; a DoRA's magnitude comes beside one of the first four
    "LoRA": (keys.UP, keys.DOWN, keys.MIDDLE),
    "LoHa": keys.LOHA,
    "LoKr": keys.LOKR,
    "GLoRA": keys.GLORA,
    "difference": DIFFERENCES,
    "new value": (keys.NEW_WEIGHT, keys.NEW_BIAS),
}
OPTIONAL = {keys.MIDDLE, "hada_t1", "hada_t2", "lokr_t2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a file has about one parameter.

    Attributes:
        path: of the file, for messages.
        parameter: official name.
        roles: what each tensor is to its name in the file.
        tensor: reads one by that name.
        scale: from the rank (None for whole matrices) to the factor of the change.
    """

    path: str
    parameter: str
    roles: Mapping[str, str]
    tensor: Callable[[str], Tensor]
    scale: Callable[[int | None], float]

    def __getitem__(self, role: str) -> Tensor:
        return self.tensor(self.roles[role])

    def some(self, *roles: str) -> tuple[Tensor, ...]:
        """Those of them that are there; all are needed but the optional ones."""
        missing = [role for role in roles if role not in self.roles and role not in OPTIONAL]
        if missing:
            raise self.error(f"without its other half ({', '.join(missing)}); use a complete file")
        return tuple(self[role] for role in roles if role in self.roles)

    def error(self, what: str) -> UnreadableWeights:
        return UnreadableWeights(f"{self.path} has {next(iter(self.roles.values()))!r} {what}")

    def fitting(self, fits: bool) -> None:
        if not fits:
            sizes = ", ".join(f"{key!r} {list(self.tensor(key).shape)}" for key in self.roles.values())
            raise UnreadableWeights(f"{self.path} has {sizes}, which can't be multiplied; save it again with its tool")


def assemble(parts: Parts) -> Delta:
    """The change that they say.

    Raises:
        UnreadableWeights: a half is missing, sides that do not fit, or two kinds of change at once.
    """
    kinds = [kind for kind, roles in KINDS.items() if any(role in parts.roles for role in roles)]
    magnitudes = [role for role in MAGNITUDES if role in parts.roles]
    if not kinds:
        raise parts.error("without the LoRA that it belongs to; use a complete file")
    decomposable = not magnitudes or kinds[0] in MAKERS
    if len(kinds) > 1 or len(magnitudes) > 1 or not decomposable or sum(map(parts.roles.__contains__, DIFFERENCES)) > 1:
        both = " and ".join(map(repr, parts.roles.values()))
        raise UnreadableWeights(
            f"{parts.path} has more than one kind of change for {parts.parameter} ({both}); save it again with its tool"
        )
    kind = kinds[0]
    if kind in MAKERS:
        delta = MAKERS[kind](parts)
        return _decomposed(parts, delta, magnitudes[0]) if magnitudes else delta
    role = next(role for role in KINDS[kind] if role in parts.roles)
    if kind == "new value":
        return Replacement(tensor=parts[role])
    return Difference(tensor=parts[role], scale=parts.scale(None) if role == keys.UP_BIAS else 1.0)


def _low_rank(parts: Parts) -> Delta:
    up, down, *middle = parts.some(keys.UP, keys.DOWN, keys.MIDDLE)
    if middle:
        core = Factors(parts=(up.flatten(1).t(), down.flatten(1), *middle))
        parts.fitting(core.fits_together)
        return Tucker(parts=core.parts, scale=parts.scale(core.rank))
    delta = LowRank(up=up, down=down, scale=1.0)
    parts.fitting(delta.fits_together)
    return replace(delta, scale=parts.scale(delta.rank))


def _hadamard(parts: Parts) -> Delta:
    first, second = Factors(parts=parts.some(*keys.LOHA[:3])), Factors(parts=parts.some(*keys.LOHA[3:]))
    parts.fitting(first.fits_together and second.fits_together and first.shape == second.shape)
    return Hadamard(first=first.parts, second=second.parts, scale=parts.scale(first.rank))


def _kronecker(parts: Parts) -> Delta:
    whole = ("lokr_w1",), ("lokr_w2",)
    split = ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b", "lokr_t2")
    halves = []
    for one, several in zip(whole, split, strict=True):
        there = [role for role in several if role in parts.roles]
        if one[0] in parts.roles and there:
            raise parts.error("whole and in parts; save it again with its tool")
        halves.append(Factors(parts=parts.some(*(several if there else one))))
    left, right = halves
    parts.fitting(left.fits_together and right.fits_together and len(left.shape) == 2)
    return Kronecker(left=left.parts, right=right.parts, scale=parts.scale(right.rank or left.rank))


def _general(parts: Parts) -> Delta:
    a1, a2, b1, b2 = parts.some(*keys.GLORA)
    if a1.shape[0] < a1.shape[-1]:  # early LyCORIS called them the other way round
        a1, a2, b1, b2 = a2, a1, b2, b1
    delta = General(a1=a1, a2=a2, b1=b1, b2=b2, scale=1.0)
    parts.fitting(delta.fits_together)
    return replace(delta, scale=parts.scale(a1.shape[1]))


MAKERS: dict[str, Callable[[Parts], Delta]] = {
    "LoRA": _low_rank, "LoHa": _hadamard, "LoKr": _kronecker, "GLoRA": _general
}  # fmt: skip


def _decomposed(parts: Parts, inner: Delta, role: str) -> Delta:
    """peft has one magnitude a row of outputs, LyCORIS the same as ``[out, 1]`` or one a row of inputs, ``[1, in]``."""
    magnitude, shape = parts[role], inner.shape
    outputs = role == keys.PEFT_MAGNITUDE or magnitude.shape[:1] == shape[:1]
    axis = 0 if outputs else 1
    if len(shape) < 2 or magnitude.numel() != shape[axis]:
        raise UnreadableWeights(
            f"{parts.path}: {parts.roles[role]!r} is {list(magnitude.shape)}, which fits neither side of "
            f"{list(shape)}; save it again with its tool"
        )
    return Decomposed(inner=inner, magnitude=magnitude, axis=axis)
