"""A Ray cluster of several nodes on this machine, in a process of its own.

Reads commands from standard input, one a line: ``add MARK`` adds a node with the resource MARK, ``lose MARK`` takes it
away as a lost machine. Answers each with one line: the address, or "ok". Ends with standard input.
"""

from __future__ import annotations

import os
import sys

os.environ["RAY_AUTH_MODE"] = "disabled"  # before Ray is imported: no token file is written
os.environ["RAY_worker_niceness"] = "0"  # Ray's 15 makes ranks wait for everything else that this machine does
os.environ["RAY_enable_worker_prestart"] = "0"  # else it starts workers ahead, for every driver, that nobody uses
os.environ["RAY_prestart_worker_first_driver"] = "0"


def main(cpus: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints
    from ray.cluster_utils import Cluster

    # Ray finds a lost node after half a minute; here after some seconds, so that the tests need not wait for it.
    health = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    node = {"num_cpus": cpus, "object_store_memory": 128 << 20, "include_dashboard": False, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    extra = {}
    try:
        print(cluster.address, file=answers)
        for line in sys.stdin:
            command, mark = line.split()
            if command == "add":
                node = {"num_cpus": cpus, "object_store_memory": 128 << 20, "resources": {mark: 1}}
                extra[mark] = cluster.add_node(**node)
                cluster.wait_for_nodes()
            else:
                cluster.remove_node(extra.pop(mark), allow_graceful=False)
            print("ok", file=answers)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
