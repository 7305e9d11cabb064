"""What people have in the place of a weight file: told by how it starts."""

from __future__ import annotations

LOOKED_AT = 512  # bytes
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<error", b"<head")
AGAIN = "download it again"


def told(start: bytes) -> str | None:
    """What a file is that starts so, and what to do about it; None if nothing is known of it."""
    text = start[:LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return f"is empty; {AGAIN}"
    if not start.strip(b"\0"):
        return f"starts with nothing but zeros, as a download that was not finished does; {AGAIN}"
    if text.startswith(b"version https://git-lfs"):
        return (
            "is a git-lfs pointer, a few lines of text in the place of the file; run `git lfs install` and `git lfs "
            "pull` in its folder, or download the file itself from its page"
        )
    if text.startswith(PAGES):
        return (
            "is a web page and no weights: the download gave a page that wants a login or says an error; "
            f"open its address in a browser, and {AGAIN} from there"
        )
    if text.startswith((b'{"error', b'{"message', b'{"detail')):
        return f"is a server's answer that says an error ({_line(start)}); {AGAIN}"
    if start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return "is a torch file of the kind before torch 1.6, which could run code; use a safetensors file"
    if start.startswith((b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")):
        return "is a compressed archive; unpack it, and name the file in it"
    return None


def _line(start: bytes) -> str:
    words = start.decode("utf-8", "replace").split("\n")[0]
    return "".join(c for c in words[:80] if c.isprintable())
