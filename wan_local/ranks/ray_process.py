"""The helper process that speaks to Ray for the driver. It needs no torch and does not look into messages.

    from the driver    {"open": settings}   {"to": ranks} + message   {"ping": ranks}   {"end": seconds}
    to the driver      {"started": [...]} or {"failed"/"refused": text}   {"answer": rank} + message   {"pong": rank}
                       {"gone": rank, "cause": text}   {"ended": [process numbers still there]}

One thread for each rank waits for that rank; the main thread reads the driver's messages. Ray is imported here alone.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from .errors import one_line
from .messages import Buffer, Channel, Fields, to_the_driver
from .process import Process, kill, lives, machine

Handle = Any  # something of Ray's, which has no types that could be named without importing it

START = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
SHARE_BYTES = 1 << 16  # larger blocks are put into Ray's shared memory once, for all ranks
REACH_SECONDS = 5.0
REAP_SECONDS = 5.0


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ray puts this folder first on the path of every worker; in ComfyUI's own, utils/ would hide others.
    os.chdir(os.sep)
    RayProcess(to_the_driver()).run()


class RayProcess:
    """Everything between one driver and one Ray cluster."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._inbox: queue.SimpleQueue[tuple[Fields, list[bytearray]]] = queue.SimpleQueue()
        self._cluster: Cluster | None = None
        self._alone = False  # whether Ray was started for this group, and ends with it
        self._queues: list[queue.SimpleQueue[tuple[bytes, Sequence[Handle]]]] = []

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._open(self._inbox.get()[0]["open"])
        except InputError as error:
            self._leave({"refused": str(error)})
        except BaseException as error:
            self._leave({"failed": f"Ray: {type(error).__name__}: {one_line(error)}"})
        while True:
            self._serve(*self._inbox.get())

    def _read(self) -> None:
        """Until the driver is gone: then the ranks of this machine are ended at once, and Ray ends the others."""
        try:
            while True:
                header, buffers = self._channel.receive()
                self._inbox.put((json.loads(header), buffers))
        finally:
            if self._cluster is not None:
                self._cluster.kill_here()
            if self._alone:
                os.killpg(0, signal.SIGKILL)  # this process too, which leads a session of its own
            os._exit(0)

    def _open(self, settings: Fields) -> None:
        if settings["address"] not in ("", "auto"):
            check_reachable(settings["address"])
        self._alone = not settings["address"]
        self._cluster = Cluster(settings)
        started = self._cluster.open()
        for rank in range(len(started)):
            waiting: queue.SimpleQueue[tuple[bytes, Sequence[Handle]]] = queue.SimpleQueue()
            self._queues.append(waiting)
            threading.Thread(target=self._ask, args=(rank, waiting), daemon=True).start()
        self._send({"started": started})

    def _serve(self, header: Fields, buffers: list[bytearray]) -> None:
        assert self._cluster is not None
        if "to" in header:
            head, arguments = bytes(buffers[0]), self._cluster.share(buffers[1:])
            for rank in header["to"]:
                self._queues[rank].put((head, arguments))
        elif "ping" in header:
            for rank in header["ping"]:
                threading.Thread(target=self._ping, args=(rank,), daemon=True).start()
        elif "end" in header:
            self._leave({"ended": self._cluster.end(header["end"])})

    def _ask(self, rank: int, waiting: queue.SimpleQueue[tuple[bytes, Sequence[Handle]]]) -> None:
        assert self._cluster is not None
        while True:
            head, arguments = waiting.get()
            try:
                answer, blocks = self._cluster.ask(rank, head, arguments)
            except Exception as error:
                self._send({"gone": rank, "cause": self._cluster.cause(error)})
                return
            self._send({"answer": rank}, answer, *blocks)

    def _ping(self, rank: int) -> None:
        assert self._cluster is not None
        try:
            if self._cluster.beats(rank):
                self._send({"pong": rank})
        except Exception as error:  # between two calls nobody else sees that a rank is lost
            self._send({"gone": rank, "cause": self._cluster.cause(error)})

    def _send(self, header: Fields, *buffers: Buffer) -> None:
        try:
            self._channel.send(json.dumps(header).encode(), buffers)
        except OSError:
            os._exit(1)

    def _leave(self, message: Fields) -> None:
        """Send a last message and end; a Ray that was started for this group goes with it."""
        self._send(message)
        if self._cluster is not None:
            self._cluster.leave()
        os._exit(0)


def check_reachable(address: str) -> None:
    """Raise :class:`InputError` where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        why = one_line(error) or f"no answer within {REACH_SECONDS:g} s"
        raise InputError(
            f"no Ray head node at {address} ({why}); start one with: ray start --head --port=6379"
        ) from None


class Cluster:
    """One group of ranks in one Ray cluster. All methods but :meth:`open` may be called from any thread.

    Args:
        settings: ``RaySettings`` as a dict, with ``gpus`` and ``world`` as numbers and ``limit`` in seconds.
    """

    def __init__(self, settings: Fields) -> None:
        self._settings = settings
        self._deadline = time.monotonic() + settings["limit"]  # importing Ray takes its part of it
        self._ray: Any = importlib.import_module("ray")
        self._worker, self._reap = sent_to_workers(self._ray)
        self._actors: list[Handle] = []
        self._started: list[Fields] = []

    def open(self) -> list[Fields]:
        """Join, place, start; where each rank is: ``node``, ``host`` (its address) and ``process``.

        Ranks of one machine get neighbouring numbers, those of this machine the first ones.
        """
        self._join()
        self._check_room()
        group = self._place(self._deadline)
        actors = [self._actor(group, index) for index in range(self._settings["world"])]
        started = self._started_ranks(actors)
        here = self._ray.get_runtime_context().get_node_id()
        nodes = [here, *dict.fromkeys(rank["id"] for rank in started)]
        order = sorted(range(len(started)), key=lambda index: nodes.index(started[index]["id"]))
        self._actors, self._started = [actors[i] for i in order], [started[i] for i in order]
        return self._started

    def _started_ranks(self, actors: list[Handle]) -> list[Fields]:
        """Make each worker a rank. Raises what a worker raised: the cause, without Ray's traceback around it."""
        try:
            answers = [actor.start.remote(START) for actor in actors]
            started: list[Fields] = self._ray.get(answers, timeout=_left(self._deadline))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FileNotFoundError):  # our own sentence, see sent_to_workers
                raise InputError(str(error.cause)) from None
            raise error.cause from None
        return started

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
                wanted = f"{each * world:g} {kind} (ranks: {world})"
                raise InputError(f"Ray has no {wanted}, its cluster has {have.get(kind, 0):g}; ask for fewer ranks")
        alive = sum(bool(node["Alive"]) for node in self._ray.nodes())
        if self._settings["placement"] == "STRICT_SPREAD" and alive < world:
            raise InputError(f"{world} ranks on a machine each, the Ray cluster has {alive}; add machines")

    def _place(self, deadline: float) -> Handle:
        util = importlib.import_module("ray.util.placement_group")
        bundle = {"CPU": self._settings["cpus"], "GPU": self._settings["gpus"]}
        bundles = [{name: count for name, count in bundle.items() if count} for _ in range(self._settings["world"])]
        group = util.placement_group(bundles, strategy=self._settings["placement"])
        if not group.wait(_left(deadline)):
            free = {name: count for name, count in self._ray.available_resources().items() if name in bundle}
            wanted = f"{len(bundles)} x {_amount(bundles[0])}"
            raise InputError(f"no room in the Ray cluster for {wanted}; free now: {_amount(free)}; end what runs there")
        return group

    def _actor(self, group: Handle, index: int) -> Handle:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        return self._worker.options(
            num_cpus=self._settings["cpus"],
            num_gpus=self._settings["gpus"],
            scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=index
            ),
        ).remote()

    def share(self, buffers: Sequence[bytearray]) -> list[Handle]:
        """Arguments for :meth:`ask`; each large block is copied into shared memory once."""
        numpy = importlib.import_module("numpy")
        blocks = [numpy.frombuffer(buffer, dtype=numpy.uint8) for buffer in buffers]
        return [self._ray.put(block) if block.nbytes >= SHARE_BYTES else block for block in blocks]

    def ask(self, rank: int, header: bytes, arguments: Sequence[Handle]) -> tuple[bytes, Sequence[Handle]]:
        """A rank's answer to one message. Raises what Ray raises when the rank is gone."""
        answer: tuple[bytes, Sequence[Handle]] = self._ray.get(self._actors[rank].handle.remote(header, *arguments))
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
        for rank in self._started:
            kill(Process(**rank["process"]))

    def end(self, limit: float) -> list[int]:
        """End every rank; the numbers of the processes still there."""
        deadline = time.monotonic() + limit
        self.kill_here()
        for actor in self._actors:
            self._ray.kill(actor, no_restart=True)
        left = self._reap_there(deadline)
        here = [Process(**rank["process"]) for rank in self._started]
        here = [process for process in here if process.machine == machine()]
        while here and time.monotonic() < deadline:
            here = [process for process in here if lives(process)]
            time.sleep(0.02)
        return left + [process.pid for process in here]

    def _reap_there(self, deadline: float) -> list[int]:
        """Kill by number on the other machines, with a task that Ray runs there."""
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        reap = self._ray.remote(num_cpus=0, max_retries=0)(self._reap)
        jobs = {
            reap.options(scheduling_strategy=affinity(rank["id"], soft=False)).remote(START, rank["process"]): rank
            for rank in self._started
            if rank["process"]["machine"] != machine()
        }
        left = []
        for job, rank in jobs.items():
            try:
                gone = self._ray.get(job, timeout=min(REAP_SECONDS, _left(deadline)))
            except self._ray.exceptions.GetTimeoutError:
                gone = False
            except self._ray.exceptions.RayError:
                gone = True  # the machine itself is lost
            if not gone:
                left.append(rank["process"]["pid"])
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


def sent_to_workers(ray: Handle) -> tuple[Handle, Handle]:
    """The class Ray runs a rank in, and the function that ends a process on its own machine.

    Made inside a function, so that Ray sends their code: a worker could not import this module by name before
    ``start.py`` has made the library importable there.
    """

    def module(start: str, name: str) -> Handle:
        """A module of this library, in a worker."""
        import importlib.util
        import platform
        import sys

        if not os.path.isfile(start):
            raise FileNotFoundError(f"{platform.node()} has no {start}; install the pack at the same place there")
        spec = importlib.util.spec_from_file_location("_wan_start", start)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["_wan_start"] = loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        loaded.load_library()
        return importlib.import_module(f"wan_local.ranks.{name}")

    class WanRank:
        def start(self, start: str) -> Fields:
            import dataclasses

            process = module(start, "process").this_process()
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)  # it may be the standard input of whatever has started Ray
            os.close(nothing)
            self.rank = module(start, "rank").Rank()
            host = ray.util.get_node_ip_address()
            node = ray.get_runtime_context().get_node_id()
            return {"id": node, "node": host, "host": host, "process": dataclasses.asdict(process)}

        def handle(self, header: bytes, *blocks: Handle) -> tuple[bytes, list[Handle]]:
            import numpy

            # The store is read-only and shared; a rank owns its arguments.
            answer, buffers = self.rank.handle(header, [bytearray(block) for block in blocks])
            return answer, [numpy.frombuffer(buffer, dtype=numpy.uint8) for buffer in buffers]

        def beat(self) -> bool:
            return True

    def reap(start: str, process: Fields) -> bool:
        """Whether the process is gone."""
        import time

        processes = module(start, "process")
        wanted = processes.Process(**process)
        processes.kill(wanted)
        end = time.monotonic() + 3
        while processes.lives(wanted) and time.monotonic() < end:
            time.sleep(0.02)
        return not processes.lives(wanted)

    WanRank.beat = ray.method(concurrency_group="life")(WanRank.beat)  # type: ignore[method-assign]
    return ray.remote(concurrency_groups={"life": 1}, max_restarts=0, max_task_retries=0)(WanRank), reap
