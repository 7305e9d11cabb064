"""The only network code: authenticated calls to a cloud's API, and downloads from anywhere else without a key."""

from .addresses import is_loopback, literal_is_public, web_parts
from .api import OWN_CERTIFICATE, Answer, Api, Call, Failure, Lost
from .download import download
from .guard import refuse_address

__all__ = [
    "OWN_CERTIFICATE", "Answer", "Api", "Call", "Failure", "Lost", "download", "is_loopback", "literal_is_public",
    "refuse_address", "web_parts",
]  # fmt: skip
