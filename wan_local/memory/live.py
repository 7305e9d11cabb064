"""How much memory the tensors of a computation take at once, counted while it runs.

Works on every device, the meta device included, where nothing is calculated and a 14B model costs no more than a toy.
What a kernel takes for itself while it works is no tensor and is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .meta_results import quickly, tensors_in


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it; those that were there before, such as weights, don't count.

    Attributes:
        live: bytes of the tensors that are alive now.
        peak: the most that were alive at once.
        at: the operation at which that was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.at = ""
        self._known: dict[int, weakref.ref[object]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, a second in each process, to keep it away from what is counted."""
        return False

    def __torch_dispatch__(
        self, function: Callable[..., object], types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        for tensor in tensors_in((args, kwargs)):
            self._see(tensor, new=False)
        result = quickly(function, args, kwargs)
        if result is None:
            result = function(*args, **kwargs)
        for tensor in tensors_in(result):
            self._see(tensor, new=True)
        if self.live > self.peak:
            self.peak, self.at = self.live, str(function)
        return result

    def _see(self, tensor: Tensor, *, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if new else 0
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        self.live += size

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size
