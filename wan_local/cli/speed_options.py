"""``--speed`` and what belongs to it: calculating less than everything."""

from __future__ import annotations

import argparse

from ..approximations import NAMES, NOTHING, PRESETS, SKIPS, Approximations, approximations_of, named
from ..approximations.options import KERNELS, MOST_IN_A_ROW, MOST_REUSE


def add_to(group: argparse._ArgumentGroup) -> None:
    """The options."""
    presets = "; ".join(f"{name}: {named(each)}" for name, each in PRESETS.items() if name != NOTHING)
    group.add_argument("--speed", choices=tuple(PRESETS), default=NOTHING,
                       help=f"what to calculate less exactly (default: {NOTHING}, nothing). {presets}. What each saves "
                            "and costs: docs/speed.md. The options below change single points of it")  # fmt: skip
    group.add_argument("--skip", choices=SKIPS,
                       help="steps without a forward in the middle of the schedule: by a list, or while EasyCache or "
                            "MagCache say that little changes")  # fmt: skip
    group.add_argument("--skip-in-a-row", type=int, metavar="N",
                       help=f"of list and magcache: steps skipped one after the other, at most {MOST_IN_A_ROW} (usual: "
                            "1 and 2)")  # fmt: skip
    group.add_argument("--skip-threshold", type=float, metavar="X",
                       help="of easycache and magcache: error up to which they go on skipping (usual: 0.2 and "
                            "0.12)")  # fmt: skip
    group.add_argument("--guidance-reuse", type=int, metavar="N",
                       help=f"ask the model under the negative prompt in every N-th step only, at most {MOST_REUSE}; "
                            "not with --skip")  # fmt: skip
    group.add_argument("--guidance-highest", type=float, metavar="SIGMA",
                       help="no guidance while there is more noise than this, 0 to 1")  # fmt: skip
    group.add_argument("--guidance-lowest", type=float, metavar="SIGMA",
                       help="no guidance while there is less noise than this, 0 to 1")  # fmt: skip
    group.add_argument("--cfg-zero", action="store_true", default=None,
                       help="CFG-Zero*: the negative prompt is scaled before it is taken away, and the first "
                            "twenty-fifth of the steps does nothing")  # fmt: skip
    group.add_argument("--nag", type=float, metavar="SCALE",
                       help="the negative prompt at guidance 1, inside the attention to the text; 11 was published for "
                            "Wan")  # fmt: skip
    group.add_argument("--attention", choices=KERNELS,
                       help="8-bit attention: SageAttention, or that of comfy-kitchen; either must be installed, and "
                            "needs an NVIDIA GPU")  # fmt: skip
    group.add_argument("--sparse", type=float, metavar="TAU",
                       help="sparse attention: blocks are read in full only if they score so many deviations above the "
                            "mean")  # fmt: skip


def read(args: argparse.Namespace) -> Approximations:
    """What was chosen.

    Raises:
        InputError: values that can't be used, or can't go together.
    """
    return approximations_of(args.speed, **{name: getattr(args, name) for name in NAMES})
