"""Every error this library raises on purpose, with the remedy in its text.

    WanError                    anything we raise for a person to read
      InputError (ValueError)   an argument is wrong: which, its value, what is allowed
      WeightsError              a weight file or folder can't be used
        UnreadableWeights       missing, truncated or not the format it must be
        WrongModel              readable, but another model than the one asked for
        ParameterMismatch       right model, but parameters are missing, unexpected or misshapen
      NumericError              NaN or infinity where there must be none
      OutOfMemory (MemoryError) a calculation that does not fit, even in the smallest pieces
      DecodeError               decoding failed; the latents are kept, and the message says where
      OutputError (OSError)     the result could not be written
      Cancelled                 the user stopped the run; not a failure

A message is one line with three parts: what was given, what is allowed, what to do.
"""

from __future__ import annotations


class WanError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is one line for a person.

    Hosts show the type with its module before it, and the module may be a path of their own disk. So all of these are
    of ``wan_local``, wherever they are written.
    """

    __module__ = "wan_local"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__module__ = WanError.__module__


class InputError(WanError, ValueError):
    """An argument is outside what the model can do."""


class WeightsError(WanError):
    """A weight file or folder can't be used."""


class UnreadableWeights(WeightsError):
    """The file is missing, truncated or not in the format its content claims."""


class WrongModel(WeightsError):
    """The file is sound but holds another model than the one asked for.

    Attributes:
        found: what it holds, as :func:`wan_local.weights.inspect` calls it; empty where that is not known.
    """

    def __init__(self, message: str, found: str = "") -> None:
        super().__init__(message)
        self.found = found


class ParameterMismatch(WeightsError):
    """Parameters are missing, unexpected or misshapen.

    Attributes:
        missing: names the model has and the file lacks.
        unexpected: names the file has and the model lacks.
        misshapen: ``(name, shape in the file, shape in the model)``.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (),
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.misshapen = misshapen


class NumericError(WanError):
    """A tensor holds NaN or infinity."""


class OutOfMemory(WanError, MemoryError):
    """There is no room for a calculation, even cut into the smallest pieces it may be cut into."""


class DecodeError(WanError):
    """Latents were sampled and could not be decoded; they are kept in a file."""


class OutputError(WanError, OSError):
    """The result could not be written; what stood at the target is untouched."""


class Cancelled(WanError):
    """The user stopped the run."""
