"""What a cloud has to say of itself, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import (
    AuthError,
    BadResponse,
    Forbidden,
    ModelUnavailable,
    NoCredit,
    RateLimited,
    Rejected,
    RemoteError,
    TooLarge,
    UnexpectedRedirect,
)
from ..images import Frame
from ..job import Job, safe_id
from ..prices import PriceList
from ..redact import redact
from ..request import Request
from ..secret import Secret
from ..transport import Answer, Call
from .reading import a_dict

OK = 200
MODERATION = ("content policy", "content_policy", "moderation", "moderated", "nsfw", "safety")
LISTED = 100  # requests asked for at once
QUESTIONS = {
    "models": "models the cloud has",
    "model": "what the cloud says of this model",
    "balance": "money left in the account",
    "price": "what a clip would cost",
    "billings": "what requests did cost",
}
"""What an account may be asked for, in words; which of them a cloud answers, it says itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer with the cloud's envelope taken off.

    Attributes:
        status: what it amounts to as an HTTP status: 200 only if everything is well.
        data: what was asked for.
        text: why it was refused, as the cloud says it, or the error that comes with a 200; not cleaned.
        answer: the whole of it.
    """

    status: int
    data: Any
    text: str
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an image goes, as an answer says it: nothing of it is checked here.

    Attributes:
        url: to put it to.
        headers: to put it with; without any, its type alone.
        address: under which the cloud finds it then.
    """

    url: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    address: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Something that an account can be asked for without paying.

    Attributes:
        call: that asks.
        read: what to show of its answer.
    """

    call: Call
    read: Callable[[Any], Any] = lambda data: data


@dataclass(frozen=True, slots=True)
class Option:
    """A field of a cloud's request as an option of the command line; its type and default are the field's.

    ``%(default)s`` in the help is the default. A switch that is on by default is named for what turns it off, beginning
    with ``no_``.
    """

    name: str  # as a column of a list of jobs; the option is --name with dashes
    field: str
    help: str
    metavar: str | None = None


class Provider(ABC):
    """A cloud: all that is its own. The methods are pure functions of their arguments.

    Attributes:
        request: what can be asked of it; names the cloud and its model.
        options: of the command line, for what its request has besides prompt, seed, fit and take.
        base, base_variable: address that all paths hang below, and the variable that may say otherwise.
        site, key_variable: where its keys are made, and the variable that holds one.
        forms: how images may be sent: "base64", "data", "url", tried in this order.
        id_field: of a record, that holds its id.
        image_bytes: budget of one image.
        first_poll, least_pause: seconds from the submission to the first poll, and between two.
        remembers: seconds for which its list shows a job; None where it does not say.
        failure_note: what to add when it could not make a clip.
        moderation_note: what helps when its content filter withheld one.
        prices: what it publishes of what a clip costs; None where it publishes nothing.
    """

    request: ClassVar[type[Request]]
    options: ClassVar[tuple[Option, ...]] = ()
    base: ClassVar[str]
    base_variable: ClassVar[str]
    site: ClassVar[str]
    key_variable: ClassVar[str]
    id_field: ClassVar[str]
    forms: ClassVar[tuple[str, ...]]
    image_bytes: ClassVar[int]
    first_poll: ClassVar[float]
    least_pause: ClassVar[float]
    remembers: ClassVar[float | None] = None
    failure_note: ClassVar[str] = ""
    moderation_note: ClassVar[str] = "use other images or another prompt"
    prices: ClassVar[PriceList | None] = None

    @property
    def name(self) -> str:
        return self.request.provider

    @property
    def label(self) -> str:
        return self.request.label

    @property
    def model(self) -> str:
        return self.request.model

    def headers(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What goes with every call besides the key, such as which of several accounts it is for.

        Raises:
            KeyInvalid: the environment says something that can't be it.
        """
        return {}

    @abstractmethod
    def submission(self, parameters: Mapping[str, Any], seed: int, first: str, last: str) -> Call:
        """Asks for a clip, which costs money."""

    @abstractmethod
    def status(self, request_id: str) -> Call: ...

    @abstractmethod
    def listing(self, page: int = 1) -> Call | None:
        """Asks for requests, newest first; None where there are no more pages."""

    @abstractmethod
    def unwrap(self, answer: Answer) -> Reply: ...

    @abstractmethod
    def job(self, record: Any) -> Job:
        """A record of its own.

        Raises:
            BadResponse: no record, or one with an id that can't be one.
        """

    def id_of(self, record: Any) -> Any:
        """What a record gives for an id, whatever it is; None if it gives none."""
        return a_dict(record).get(self.id_field)

    def usable_id(self, record: Any) -> str:
        """The same, if it may stand in a path.

        Raises:
            BadResponse: it may not, or there is none.
        """
        found = safe_id(self.id_of(record))
        if found is None:
            raise BadResponse(f"{self.label} answered without a usable request id")
        return found

    @abstractmethod
    def listed(self, data: Any) -> Sequence[Any] | None:
        """The rows of a list; None for anything else, which proves nothing about what was made."""

    def more(self, data: Any) -> bool:
        """Whether a page of a list says that there are others behind it."""
        return False

    def wraps_refusal(self, reply: Reply) -> bool:
        """Whether a 500 says that the request was refused: nothing was made then."""
        return False

    @abstractmethod
    def upload_ticket(self, name: str, frame: Frame) -> Call:
        """Asks where to put an image."""

    def upload_form(self, name: str, frame: Frame) -> Call | None:
        """Sends an image itself, with the key, where no place for it is to be had; None if that can't be done."""
        return None

    @abstractmethod
    def place(self, data: Any) -> Place:
        """Of the answer to either; what it does not say is None."""

    def questions(self, inputs: Mapping[str, Any]) -> Mapping[str, Question]:
        """What else an account can be asked for: some of :data:`QUESTIONS`. ``inputs`` are what a price is for."""
        return {}

    def quoted(self, data: Any) -> float | None:
        """US dollars of an answer to its question for a price."""
        return None


def refusal(provider: Provider, reply: Reply, secret: Secret) -> RemoteError:
    """The error for an answer that is not a success."""
    text = redact(reply.text, (secret.reveal(),)) or "without a reason"
    status, label = reply.status, provider.label
    if reply.answer.redirects:
        return UnexpectedRedirect(
            f"{label} sent the request elsewhere ({status}); it was not followed, try again later"
        )
    if status == 401:
        return AuthError(
            f"{label} does not take the key from {secret.source} ({text}); make a new one at {provider.site}"
        )
    if status == 402:
        return NoCredit(f"{label}: {text}; top up the account at {provider.site}")
    if status == 403:
        return Forbidden(f"{label} does not allow this: {text}")
    if status == 404:
        return ModelUnavailable(f"{label} does not offer {provider.model} to this account: {text}")
    if status == 413:
        return TooLarge(f"{label} finds the images too large: {text}; use smaller or less noisy ones")
    if status == 429:
        return RateLimited(f"{label} has had too many requests: {text}; try again later")
    if 400 <= status < 500 or provider.wraps_refusal(reply):
        return Rejected(f"{label} refused the request: {text}")
    return BadResponse(f"{label} answered {status}: {text}; try again later")


def is_moderation(text: str) -> bool:
    return any(word in text.lower() for word in MODERATION)
