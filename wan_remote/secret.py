"""An API key while a program holds it."""

from __future__ import annotations

from hashlib import sha256


class Secret:
    """A key that does not print itself.

    Attributes:
        source: where it came from, for messages.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The key. Only for the header of a request, and to cut it out of texts."""
        return self._value

    @property
    def scope(self) -> str:
        """Tells accounts apart without telling the key: 8 hexadecimal digits."""
        return sha256(self._value.encode()).hexdigest()[:8]

    def cut_from(self, text: str) -> str:
        """``text`` without the key, should somebody have written it into a graph."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        return f"<key from {self.source}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is not copied or stored")
