"""How a run is split over GPUs: into cond and uncond, heads (Ulysses), and pieces of the sequence (ring)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..words import counted

AUTO = 0  # what stands for "choose" in the fields that people fill in


@dataclass(frozen=True, kw_only=True, slots=True)
class Degrees:
    """A split; the product of the three is the number of GPUs.

    Attributes:
        cfg: 2 calculates prompt and negative prompt on two halves of the GPUs, 1 one after the other.
        ulysses: GPUs that share the heads of an attention (Jacobs et al. 2023, arXiv 2309.14509).
        ring: GPUs among which keys and values go around (Liu et al. 2023, arXiv 2310.01889).
    """

    cfg: int = 1
    ulysses: int = 1
    ring: int = 1

    @property
    def gpus(self) -> int:
        return self.cfg * self.ulysses * self.ring

    @property
    def shards(self) -> int:
        """Parts of the tokens."""
        return self.ulysses * self.ring

    def __str__(self) -> str:
        return f"cfg {self.cfg} x ulysses {self.ulysses} x ring {self.ring}"


def check(degrees: Degrees, heads: int, gpus: int) -> None:
    """Raise :class:`InputError` unless a split is possible: its product, and heads that divide."""
    for name in ("cfg", "ulysses", "ring"):
        if getattr(degrees, name) < 1:
            raise InputError(f"{name}={getattr(degrees, name)} can't be used; use 1 or more")
    if degrees.cfg > 2:
        raise InputError(f"cfg={degrees.cfg} can't be used: guidance has cond and uncond alone; use 1 or 2")
    if heads % degrees.ulysses:
        raise InputError(
            f"ulysses={degrees.ulysses} does not divide the {counted(heads, 'head')} of this model; use one of "
            f"{', '.join(map(str, divisors(heads, 16)))}, or ring"
        )
    if degrees.gpus != gpus:
        raise InputError(
            f"{degrees} makes {counted(degrees.gpus, 'GPU')}, and gpus={gpus}; the three must multiply to the "
            "number of GPUs"
        )


def choose(
    gpus: int, heads: int, *, guided: bool = True, cfg: int = AUTO, ulysses: int = AUTO, ring: int = AUTO
) -> tuple[Degrees, str]:
    """The best split that fits what was asked for, and why it was taken.

    Cond and uncond come first, since they exchange one latent a step; heads next, since they need no kernel
    that gives a log-sum-exp; the ring takes what heads can't divide.

    Args:
        gpus: number of GPUs.
        heads: attention heads of the model.
        guided: whether guidance is used at all (a guidance scale other than 1).
        cfg, ulysses, ring: what the user fixed; 0 for no wish.

    Raises:
        InputError: nothing fits.
    """
    if gpus < 1:
        raise InputError(f"gpus={gpus} can't be used; use 1 or more")
    # Without guidance both halves do the same work: only where the other wishes leave nothing else.
    halves = [cfg] if cfg else ([2, 1] if guided else [1, 2])
    for half in halves:
        rest, left = divmod(gpus, max(1, half))
        if left:
            continue
        wanted = [ulysses] if ulysses else divisors(heads, rest)[::-1]
        for degree in wanted:
            if degree > 0 and rest % degree == 0 and heads % degree == 0 and ring in (AUTO, rest // degree):
                found = Degrees(cfg=half, ulysses=degree, ring=rest // degree)
                check(found, heads, gpus)
                return found, _reason(found, heads, guided)
    fixed = {"cfg": cfg, "ulysses": ulysses, "ring": ring}
    if all(fixed.values()):
        check(Degrees(cfg=cfg, ulysses=ulysses, ring=ring), heads, gpus)
    if ulysses and heads % ulysses:
        check(Degrees(cfg=1, ulysses=ulysses, ring=1), heads, ulysses)
    wishes = ", ".join(f"{name}={value}" for name, value in fixed.items() if value) or "no wish"
    raise InputError(
        f"{wishes} does not go with gpus={gpus}: cfg (1 or 2) x ulysses (a divisor of {heads} heads) x ring must be "
        f"{gpus}"
    )


def divisors(number: int, most: int) -> list[int]:
    """Divisors of ``number`` up to ``most``."""
    return [degree for degree in range(1, max(1, most) + 1) if number % degree == 0]


def _reason(degrees: Degrees, heads: int, guided: bool) -> str:
    parts = []
    if degrees.cfg == 2 and guided:
        parts.append("prompt and negative prompt at once")
    elif degrees.cfg == 2:
        parts.append("half of the GPUs repeat the work of the other half, since guidance is 1")
    elif guided and degrees.gpus > 1:
        parts.append("prompt and negative prompt one after the other")
    if degrees.ulysses > 1:
        parts.append(f"{heads // degrees.ulysses} of {heads} heads a GPU")
    if degrees.ring > 1:
        parts.append(f"keys going around {degrees.ring} GPUs")
    return f"{degrees}: {', '.join(parts) or 'one GPU'}"
