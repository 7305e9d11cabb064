"""The bridge's side of Ray: join or start it, place the ranks, ask them, end them. Ray is imported here alone."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from . import identity
from .errors import one_line
from .identity import Process

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
SHARE_BYTES = 1 << 16  # larger blocks are put into Ray's shared memory once, for all ranks
REAP_SECONDS = 5.0


class Cluster:
    """One group of ranks in one Ray cluster. All methods but :meth:`open` may be called from any thread.

    Args:
        settings: ``RaySettings`` as a dict, with ``gpus`` and ``world`` as numbers and ``limit`` in seconds.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._deadline = time.monotonic() + settings["limit"]  # importing Ray takes its part of it
        self._ray: Any = importlib.import_module("ray")
        self._actors: list[Any] = []
        self._seats: list[dict[str, Any]] = []

    def open(self) -> list[dict[str, Any]]:
        """Join, place, start; where each rank is: ``node``, ``host`` (its address) and ``process``.

        Ranks of one machine get neighbouring numbers, those of this machine the first ones.
        """
        self._join()
        self._check_room()
        group = self._place(self._deadline)
        actors = [self._actor(group, index) for index in range(self._settings["world"])]
        seats = self._sit_down(actors)
        here = self._ray.get_runtime_context().get_node_id()
        nodes = [here, *dict.fromkeys(seat["id"] for seat in seats)]
        order = sorted(range(len(seats)), key=lambda index: nodes.index(seats[index]["id"]))
        self._actors, self._seats = [actors[i] for i in order], [seats[i] for i in order]
        return self._seats

    def _sit_down(self, actors: list[Any]) -> list[dict[str, Any]]:
        """Make each worker a rank. Raises what a worker raised: the cause, without Ray's traceback around it."""
        try:
            where = [actor.where.remote(BOOT) for actor in actors]
            seats: list[dict[str, Any]] = self._ray.get(where, timeout=_left(self._deadline))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FileNotFoundError):  # our own sentence, see actor_class
                raise InputError(str(error.cause)) from None
            raise error.cause from None
        return seats

    def _join(self) -> None:
        address = self._settings["address"]
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        try:
            if address:
                self._ray.init(address=address, **quiet)
            else:
                memory = self._settings["object_store"]
                self._ray.init(address="local", include_dashboard=False, object_store_memory=memory, **quiet)
        except (RuntimeError, ConnectionError, ValueError, OSError) as error:
            where = f"join Ray at {address}" if address else "start Ray on this machine"
            hint = f"; run on this machine: ray start --address={address}" if ":" in address else ""
            raise InputError(f"could not {where}: {one_line(error)}{hint}") from None

    def _check_room(self) -> None:
        """Refuse what can never be placed: Ray itself would wait for it for ever."""
        world, have = self._settings["world"], self._ray.cluster_resources()
        for kind, each in (("GPU", self._settings["gpus"]), ("CPU", self._settings["cpus"])):
            if each * world > have.get(kind, 0) + 1e-6:
                wanted = f"{world} ranks want {each * world:g} {kind}"
                raise InputError(f"{wanted}, the Ray cluster has {have.get(kind, 0):g}; ask for fewer ranks")
        alive = sum(bool(node["Alive"]) for node in self._ray.nodes())
        if self._settings["placement"] == "STRICT_SPREAD" and alive < world:
            raise InputError(f"{world} ranks on a machine each, the Ray cluster has {alive}; add machines")

    def _place(self, deadline: float) -> Any:
        util = importlib.import_module("ray.util.placement_group")
        bundle = {"CPU": self._settings["cpus"], "GPU": self._settings["gpus"]}
        bundles = [{name: count for name, count in bundle.items() if count} for _ in range(self._settings["world"])]
        group = util.placement_group(bundles, strategy=self._settings["placement"])
        if not group.wait(_left(deadline)):
            free = {name: count for name, count in self._ray.available_resources().items() if name in bundle}
            wanted = f"{len(bundles)} x {_amount(bundles[0])}"
            raise InputError(f"no room in the Ray cluster for {wanted}; free now: {_amount(free)}; end what runs there")
        return group

    def _actor(self, group: Any, index: int) -> Any:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        return (
            actor_class(self._ray)
            .options(
                num_cpus=self._settings["cpus"],
                num_gpus=self._settings["gpus"],
                scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=index
                ),
            )
            .remote()
        )

    def share(self, buffers: Sequence[bytearray]) -> list[Any]:
        """Arguments for :meth:`ask`; each large block is copied into shared memory once."""
        numpy = importlib.import_module("numpy")
        blocks = [numpy.frombuffer(buffer, dtype=numpy.uint8) for buffer in buffers]
        return [self._ray.put(block) if block.nbytes >= SHARE_BYTES else block for block in blocks]

    def ask(self, rank: int, header: bytes, arguments: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
        """A rank's answer to one message. Raises what Ray raises when the rank is gone."""
        answer: tuple[bytes, Sequence[Any]] = self._ray.get(self._actors[rank].handle.remote(header, *arguments))
        return answer

    def beats(self, rank: int) -> bool:
        """Whether the rank's process answers, while it works or waits for another rank.

        Raises what Ray raises when it knows that the rank is gone.
        """
        try:
            return bool(self._ray.get(self._actors[rank].beat.remote(), timeout=REAP_SECONDS))
        except self._ray.exceptions.GetTimeoutError:
            return False

    def cause(self, error: BaseException) -> str:
        """Why a rank did not answer, in a line. Ray's own text is many lines; the reason stands behind a label."""
        if isinstance(error, self._ray.exceptions.RayTaskError):  # raised in the rank; Ray puts a traceback around it
            error = error.cause
        name, text = type(error).__name__, str(error)
        for label in ("The actor is dead because its node has died", "node (IP: ", "node was terminated"):
            if label in text:
                return f"its machine was lost ({name}: {_sentence(text, label)})"
        if name == "ActorUnavailableError":  # before the cluster has found out more
            return f"its process was killed or its machine was lost ({name}: {_reason(text)})"
        if name == "OutOfMemoryError":
            return f"out of memory: Ray ended its process to save the machine ({_reason(text)})"
        if name in ("ActorDiedError", "WorkerCrashedError"):
            return f"its process was killed or died, perhaps for want of memory ({name}: {_reason(text)})"
        return f"{name}: {one_line(text)}"

    def kill_here(self) -> None:
        """End the ranks of this machine by their number; ``ray.kill`` does not end a frozen process."""
        for seat in self._seats:
            identity.kill(Process(**seat["process"]))

    def end(self, limit: float) -> list[int]:
        """End every rank; the numbers of the processes still there."""
        deadline = time.monotonic() + limit
        self.kill_here()
        for actor in self._actors:
            self._ray.kill(actor, no_restart=True)
        left = self._reap_there(deadline)
        here = [Process(**seat["process"]) for seat in self._seats]
        here = [process for process in here if process.machine == identity.machine()]
        while here and time.monotonic() < deadline:
            here = [process for process in here if identity.lives(process)]
            time.sleep(0.02)
        return left + [process.pid for process in here]

    def _reap_there(self, deadline: float) -> list[int]:
        """Kill by number on the other machines, with a task that Ray runs there."""
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        reap = self._ray.remote(num_cpus=0, max_retries=0)(reaper())
        jobs = {
            reap.options(scheduling_strategy=affinity(seat["id"], soft=False)).remote(BOOT, seat["process"]): seat
            for seat in self._seats
            if seat["process"]["machine"] != identity.machine()
        }
        left = []
        for job, seat in jobs.items():
            try:
                gone = self._ray.get(job, timeout=min(REAP_SECONDS, _left(deadline)))
            except self._ray.exceptions.GetTimeoutError:
                gone = False
            except self._ray.exceptions.RayError:
                gone = True  # the machine itself is lost
            if not gone:
                left.append(seat["process"]["pid"])
        return left

    def leave(self) -> None:
        """Leave the cluster; a Ray that :meth:`open` started itself ends with that."""
        self._ray.shutdown()


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _amount(resources: dict[str, float]) -> str:
    return " and ".join(f"{count:g} {name}" for name, count in resources.items()) or "nothing"


def _sentence(text: str, label: str) -> str:
    return one_line(text[text.index(label) :].split(".")[0], 160)


def _reason(text: str) -> str:
    """The part of Ray's message that differs from death to death."""
    for label in ("Worker exit detail:", "Worker unexpectedly exits", "The actor died", "The actor is"):
        if label in text:
            return one_line(text[text.index(label) :], 160)
    return one_line(text, 160)


def actor_class(ray: Any) -> Any:
    """The class Ray runs a rank in.

    Made inside a function, so that Ray sends its code: a worker could not import this module by name before
    ``boot.py`` has made the library importable there.
    """

    class WanRank:
        def where(self, boot: str) -> dict[str, Any]:
            import dataclasses
            import importlib.util
            import platform
            import sys

            if not os.path.isfile(boot):
                raise FileNotFoundError(f"{platform.node()} has no {boot}; install the pack at the same place there")
            spec = importlib.util.spec_from_file_location("_wan_boot", boot)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules["_wan_boot"] = module
            spec.loader.exec_module(module)
            module.load_library()
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)  # it may be the standard input of whatever has started Ray
            os.close(nothing)
            self.rank = importlib.import_module("wan_local.parallel.ranks.rank").Rank()
            process = importlib.import_module("wan_local.parallel.ranks.identity").this_process()
            node = ray.get_runtime_context().get_node_id()
            host = ray.util.get_node_ip_address()
            return {"id": node, "node": host, "host": host, "process": dataclasses.asdict(process)}

        def handle(self, header: bytes, *blocks: Any) -> tuple[bytes, list[Any]]:
            import numpy

            # The store is read-only and shared; a rank owns its arguments.
            answer, buffers = self.rank.handle(header, [bytearray(block) for block in blocks])
            return answer, [numpy.frombuffer(buffer, dtype=numpy.uint8) for buffer in buffers]

        def beat(self) -> bool:
            return True

    WanRank.beat = ray.method(concurrency_group="life")(WanRank.beat)  # type: ignore[method-assign]
    return ray.remote(concurrency_groups={"life": 1}, max_restarts=0, max_task_retries=0)(WanRank)


def reaper() -> Any:
    """The function that ends a process on its own machine, made to be sent like :func:`actor_class`."""

    def reap(boot: str, process: dict[str, Any]) -> bool:
        import importlib.util
        import sys
        import time

        path = os.path.join(os.path.dirname(boot), "identity.py")
        spec = importlib.util.spec_from_file_location("_wan_identity", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["_wan_identity"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        wanted = module.Process(**process)
        module.kill(wanted)
        end = time.monotonic() + 3
        while module.lives(wanted) and time.monotonic() < end:
            time.sleep(0.02)
        return not module.lives(wanted)

    return reap
