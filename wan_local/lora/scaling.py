"""How strongly an adapter counts: kohya and LyCORIS store alpha beside it, peft in its config."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from ..errors import UnreadableWeights

# A regular expression out of a file could keep us busy for ever, so only such are used whose search is short: single
# characters, classes and groups without a repetition around them, with few repetitions and alternatives.
HARMLESS = re.compile(r"\^?(?:[\w\-/. |()]|\\[.dw\-]|\[[\w\-]+\]|[*+?](?![*+?])(?<!\).))*\$?")
AT_MOST = ("[*+?]", 3), ("[|]", 6)
OTHER_BASE = ("pissa", "olora", "corda", "loftq")  # peft takes a part out of the weights when it starts with these


class Scaling:
    """What the config of one file says.

    Args:
        path: of the file, for messages.
        config: peft's, from the file's metadata or from beside it; else empty.

    Raises:
        UnreadableWeights: a config that can't be followed.
    """

    def __init__(self, path: str, config: Mapping[str, object]) -> None:
        flat = {key.removeprefix("transformer."): value for key, value in config.items()}
        started = str(flat.get("init_lora_weights", "")).lower()
        if started.startswith(OTHER_BASE):
            raise UnreadableWeights(
                f"{path} was started with init_lora_weights={started!r}, so it fits changed weights only; save it with "
                "path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
            )
        self._alpha = _number(flat.get("lora_alpha", flat.get("alpha")))
        self._rank = _number(flat.get("r"))
        self._stabilised = flat.get("use_rslora") is True
        self._alphas = _patterns(path, "alpha_pattern", flat.get("alpha_pattern"))
        self._ranks = _patterns(path, "rank_pattern", flat.get("rank_pattern"))

    def of(self, layers: Iterable[str], rank: int | None, stored: float | None) -> float:
        """The factor of one adapter.

        Args:
            layers: every name that peft may have called the layer by.
            rank: of its matrices; None where they are whole, so that only a config can know it.
            stored: alpha beside the matrices, None where there is none.
        """
        if stored is not None and rank is None:
            return 1.0  # LyCORIS: whole matrices are not scaled, whatever alpha is
        layers = tuple(layers)
        alpha = _first(self._alphas, layers, self._alpha) if stored is None else stored
        size = _first(self._ranks, layers, self._rank) if rank is None else float(rank)
        if alpha is None or not size:
            return 1.0
        return alpha / (math.sqrt(size) if self._stabilised else size)


def _patterns(path: str, name: str, given: object) -> list[tuple[re.Pattern[str], float]]:
    """As peft's ``get_pattern_key`` matches them: at the end of a name, from any dot on."""
    found = []
    for pattern, value in given.items() if isinstance(given, dict) else ():
        number = _number(value)
        try:
            if number is None or not HARMLESS.fullmatch(pattern):
                raise ValueError
            if any(len(re.findall(mark, pattern)) > most for mark, most in AT_MOST):
                raise ValueError
            found.append((re.compile(rf"(.*\.)?({pattern})$"), number))
        except (ValueError, re.error):
            raise UnreadableWeights(
                f"{path} has the {name} {pattern!r}: {value!r}, which can't be used here; give it names of layers, or "
                "store alpha beside the matrices"
            ) from None
    return found


def _first(patterns: list[tuple[re.Pattern[str], float]], layers: tuple[str, ...], other: float | None) -> float | None:
    return next((value for pattern, value in patterns if any(map(pattern.match, layers))), other)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
