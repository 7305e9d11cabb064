"""What a person may choose to be calculated less exactly, to save time. Plain Python; read it first.

All of it is off unless it is asked for, and then the run is exact, to the bit. What each option saves and costs was
measured: ``docs/speed.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from ..checks import check_number, check_whole
from ..errors import InputError

OFF, LIST, EASYCACHE, MAGCACHE = "off", "list", "easycache", "magcache"
KERNELS = ("sage", "ck_int8")  # of attention/, those that approximate
SKIPS = (OFF, LIST, EASYCACHE, MAGCACHE)
IN_A_ROW = {LIST: 1, MAGCACHE: 2}  # MagCache's K, as published for Wan2.1
THRESHOLDS = {EASYCACHE: 0.2, MAGCACHE: 0.12}  # of ComfyUI's EasyCache node, and as published for Wan2.1
MOST_IN_A_ROW, MOST_REUSE = 4, 8
MAX_THRESHOLD, MAX_NAG, MAX_SPARSE = 1.0, 50.0, 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Approximations:
    """The choices; every value is checked when it is made. The defaults calculate everything.

    Attributes:
        skip: steps without a forward in the middle of the schedule. "off"; "list": steps that are known beforehand,
            whose velocity goes on in a straight line; "easycache": while the latents have moved little; "magcache":
            by a curve that was measured on Wan, with the same straight line.
        skip_in_a_row: steps that "list" or "magcache" may skip one after the other, 1 to 4; 0 takes what is usual.
        skip_threshold: error up to which "easycache" or "magcache" go on skipping, 0 to 1; 0 takes what is usual.
        guidance_reuse: cond is asked in every step and uncond in every n-th, in the middle of the schedule; what it
            takes away is kept meanwhile. 1 asks it in every step.
        guidance_highest: sigma above which there is no guidance, 0 to 1; such a step takes one forward.
        guidance_lowest: sigma below which there is none.
        cfg_zero: CFG-Zero*: uncond is scaled to fit cond, and the first twenty-fifth of the steps does nothing.
        nag: scale of normalized attention guidance, above 1: the negative prompt at guidance 1, inside the attention
            to the text. 0 is none; 11 is what was published for Wan.
        attention: 8-bit attention in the place of the model's own kernel: "sage" or "ck_int8". "" is the model's own.
        sparse: tau of sparse attention, 0 to 4: how far above the mean a block of keys must score to be read exactly,
            in standard deviations. 0 is none.

    Raises:
        InputError: a value that can't be used, or two that can't go together.
    """

    skip: str = OFF
    skip_in_a_row: int = 0
    skip_threshold: float = 0.0
    guidance_reuse: int = 1
    guidance_highest: float = 1.0
    guidance_lowest: float = 0.0
    cfg_zero: bool = False
    nag: float = 0.0
    sparse: float = 0.0
    attention: str = ""

    def __post_init__(self) -> None:
        if self.skip not in SKIPS:
            raise InputError(f"skip={self.skip!r} is not known; use {', '.join(SKIPS)}")
        check_whole("skip_in_a_row", self.skip_in_a_row, 0, MOST_IN_A_ROW)
        check_number("skip_threshold", self.skip_threshold, 0.0, MAX_THRESHOLD)
        check_whole("guidance_reuse", self.guidance_reuse, 1, MOST_REUSE)
        check_number("guidance_highest", self.guidance_highest, 0.0, 1.0)
        check_number("guidance_lowest", self.guidance_lowest, 0.0, 1.0)
        if not isinstance(self.cfg_zero, bool):
            raise InputError(f"cfg_zero={self.cfg_zero!r} can't be used; give true or false")
        check_number("nag", self.nag, 0.0, MAX_NAG)
        if 0 < self.nag <= 1:
            raise InputError(f"nag={self.nag:g} would do nothing; give a scale above 1 such as 11, or 0 for none")
        check_number("sparse", self.sparse, 0.0, MAX_SPARSE)
        if self.attention and self.attention not in KERNELS:
            raise InputError(f"attention={self.attention!r} is not known here; use {' or '.join(KERNELS)}")
        self._check_together()

    def _check_together(self) -> None:
        if self.skip_in_a_row and self.skip not in IN_A_ROW:
            raise InputError(
                f"skip_in_a_row={self.skip_in_a_row} is for {' and '.join(IN_A_ROW)} and skip is {self.skip!r}; set it "
                "to 0, or choose one of those"
            )
        if self.skip_threshold and self.skip not in THRESHOLDS:
            raise InputError(
                f"skip_threshold={self.skip_threshold:g} is for {' and '.join(THRESHOLDS)} and skip is {self.skip!r}; "
                "set it to 0, or choose one of those"
            )
        if self.skip != OFF and self.guidance_reuse > 1:
            raise InputError(
                f"skip={self.skip!r} and guidance_reuse={self.guidance_reuse} can't go together, since what is reused "
                "would be older than the steps between; set skip to off or guidance_reuse to 1"
            )
        if self.guidance_lowest >= self.guidance_highest:
            raise InputError(
                f"guidance_lowest={self.guidance_lowest:g} is not below guidance_highest={self.guidance_highest:g}, so "
                "no step would have guidance; set the sampler's guidance to 1 for that"
            )

    @property
    def exact(self) -> bool:
        """Whether nothing is approximated."""
        return self == EXACT

    @property
    def needs_sides(self) -> bool:
        """Whether the velocity of a step is anything but what the model gives for it under its guidance."""
        return replace(self, nag=0.0, sparse=0.0, attention="") != EXACT

    @property
    def most_in_a_row(self) -> int:
        """Steps that may be skipped one after the other."""
        return self.skip_in_a_row or IN_A_ROW[self.skip]

    @property
    def threshold(self) -> float:
        """Error up to which steps are skipped."""
        return self.skip_threshold or THRESHOLDS[self.skip]

    def chosen(self) -> dict[str, object]:
        """The options that are not at their defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(EXACT, name)}


NAMES = tuple(field.name for field in fields(Approximations))
EXACT = Approximations()
