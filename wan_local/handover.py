"""Make things here while a thread of its own uses them: the GPU need not wait for the video encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
END, STOP = object(), object()
LOOK = 0.1  # seconds after which a full queue is looked at again, should nobody empty it any more


class _Stopped(BaseException):
    """Tells whoever uses the items that no more will come, not even an end."""


def hand_over(items: Iterable[Item], use: Callable[[Iterator[Item]], Result], waiting: int = 2) -> Result:
    """``use(items)``, with ``use`` in a thread and the items made in this one.

    An error on either side ends both, and is raised here; the thread has ended when this returns or raises.

    Args:
        items: made one after the other, here.
        use: takes an iterator of them.
        waiting: items that may lie between the two.
    """
    queue: Queue[object] = Queue(waiting)
    gone = Event()
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(use(_taken(queue)))
        except _Stopped:
            pass
        except BaseException as error:  # raised again where somebody hears it
            errors.append(error)
        finally:
            gone.set()

    def put(item: object) -> None:
        while not gone.is_set():
            try:
                return queue.put(item, timeout=LOOK)
            except Full:
                continue

    thread = Thread(target=work, name="hand over", daemon=True)
    thread.start()
    last = STOP
    try:
        for item in items:
            put(item)
            if gone.is_set():
                break
        last = END
    finally:
        put(last)
        thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _taken(queue: Queue[object]) -> Iterator[Any]:
    while (item := queue.get()) is not END:
        if item is STOP:
            raise _Stopped
        yield item
