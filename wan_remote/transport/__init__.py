"""The only network code: authenticated calls to a cloud's API, and downloads from anywhere else without a key."""

from .addresses import literal_is_public
from .api import OWN_CERTIFICATE, Answer, Api, Call, Failure, Lost
from .download import download
from .guard import refuse_address

__all__ = [
    "OWN_CERTIFICATE", "Answer", "Api", "Call", "Failure", "Lost", "download", "literal_is_public", "refuse_address",
]  # fmt: skip
