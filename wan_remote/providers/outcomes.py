"""How a job stands and which of its outputs is the video, read the same way at every cloud."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from ..job import Status

STATUSES = {
    **dict.fromkeys(("created", "pending", "queued", "dispatched", "starting"), Status.QUEUED),
    **dict.fromkeys(("processing", "running"), Status.PROCESSING),
    **dict.fromkeys(("success", "succeeded", "completed"), Status.SUCCEEDED),
    **dict.fromkeys(("failed", "timeout", "deleted"), Status.FAILED),
    **dict.fromkeys(("cancelled", "canceled"), Status.CANCELLED),
}
"""Words of either cloud, in small letters. One that is not here is judged by what comes with it."""
VIDEOS = (".mp4", ".webm", ".mov", ".mkv")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def status_of(word: str, url: str) -> tuple[Status, bool]:
    """What a cloud's word means, and whether it is one known here.

    Args:
        word: as the cloud writes it, in any case; may be empty.
        url: of the video, if there is one: with a word that is not known it says that the job is done.
    """
    status = STATUSES.get(word.strip().lower())
    if status is not None:
        return status, True
    return (Status.SUCCEEDED if url else Status.PROCESSING), False


def video_among(urls: Sequence[str]) -> str:
    """The video's address among those of several outputs: one that ends like a video, else one that does not end like
    an image; empty if there is none."""
    urls = [url for url in urls if url]
    found = [url for url in urls if _ends(url, VIDEOS)] or [url for url in urls if not _ends(url, IMAGES)]
    return found[0] if found else ""


def _ends(url: str, endings: tuple[str, ...]) -> bool:
    try:
        return urlsplit(url).path.lower().endswith(endings)
    except ValueError:
        return False
