"""What can go wrong with a clip made in a cloud, each in one line for the person in front of the graph.

No message holds a key, a signed address or image data: text from outside goes through
:func:`wan_remote.redact.redact` first, and nothing is raised from inside the HTTP library's own exceptions, which hold
headers and addresses.
"""

from __future__ import annotations


class RemoteError(Exception):
    """Base of all errors of this package.

    Hosts show the type with its module before it, and the module may be a path of their own disk. So all of these are
    of ``wan_remote``, wherever they are written.

    Args:
        text: for the person in front of the graph.
        advises: whether the text says how to have the job after all; who knows its id adds that where it does not.
    """

    __module__ = "wan_remote"

    def __init__(self, text: str = "", *, advises: bool = False) -> None:
        super().__init__(text)
        self.advises = advises

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__module__ = RemoteError.__module__


# -- before anything is sent ------------------------------------------------------------------------------------


class KeyMissing(RemoteError):
    """No API key is set for this cloud."""


class KeyInvalid(RemoteError):
    """What is set as API key can't be one."""


class InvalidRequest(RemoteError):
    """A parameter or image the cloud would not take."""


class StorageError(RemoteError):
    """A folder that can't be written, or a full disk."""


# -- the cloud refuses ------------------------------------------------------------------------------------------


class Rejected(RemoteError):
    """The cloud refused the request; nothing was made and nothing is billed."""


class AuthError(RemoteError):
    """The cloud does not know the key."""


class NoCredit(RemoteError):
    """The account has no money left."""


class Forbidden(RemoteError):
    """The account may not do this."""


class ModelUnavailable(RemoteError):
    """The cloud does not offer the model, or not to this account."""


class TooLarge(RemoteError):
    """The images are too large for the cloud."""


class NoUploads(Rejected):
    """The cloud takes no image by upload."""


class RateLimited(RemoteError):
    """Too many requests in too short a time."""


# -- on the way -------------------------------------------------------------------------------------------------


class Unreachable(RemoteError):
    """The cloud can't be reached."""


class InsecureConnection(RemoteError):
    """The cloud's certificate can't be trusted."""


class UnexpectedRedirect(RemoteError):
    """The cloud sent an authenticated request somewhere else; it was not followed."""


class BadResponse(RemoteError):
    """The cloud answered something that can't be right."""


class NotSent(RemoteError):
    """Another clip of the list may be paid for and is not known to be: this one was not sent."""


class SubmissionUnknown(RemoteError):
    """It is not known whether a submission was taken; it is not sent again by itself."""


# -- the job ----------------------------------------------------------------------------------------------------


class StillRunning(RemoteError):
    """The job is not done within the time one is willing to wait; it goes on."""


class JobFailed(RemoteError):
    """The cloud could not make the clip."""


class JobCancelled(RemoteError):
    """The job was cancelled in the cloud."""


class JobGone(RemoteError):
    """The cloud no longer knows the job."""


class Moderated(RemoteError):
    """The cloud's content filter withheld the clip."""


class SomeFailed(RemoteError):
    """Some clips of a list could not be had. A line each; the others are kept."""


class EmptyResult(RemoteError):
    """The job is said to be done and has no video."""


# -- the file ---------------------------------------------------------------------------------------------------


class BadDownload(RemoteError):
    """The file is not the video it should be, or lies where nothing should be fetched from."""


class ResultExpired(RemoteError):
    """The cloud no longer has the file."""


class Interrupted(Exception):  # noqa: N818
    """The user pressed stop. Not an error: hosts turn it into their own interruption."""
