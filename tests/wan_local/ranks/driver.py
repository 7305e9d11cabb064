"""A driver to be killed: starts two ranks, says their numbers, and leaves them in a collective that never ends."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2]))

from wan_local.ranks import GroupSpec, RankGroup, RaySettings  # noqa: E402


def main(launcher: str, tell: str) -> None:
    spec = GroupSpec(
        target="toy_rank:Toy",
        devices=("cpu", "cpu"),
        threads=1,
        launcher=launcher,
        paths=(str(HERE),),
        ray=RaySettings(auth="disabled", cpus=0.5, object_store=128 << 20),
    )
    group = RankGroup(spec)
    group.start()
    print(*group.pids, flush=True)
    group.call("wait_for_the_last", tell, timeout=300)


if __name__ == "__main__":
    main(*sys.argv[1:])
