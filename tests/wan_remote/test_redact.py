"""What is shown of a cloud's words: all of them, but nothing that could be a key."""

from __future__ import annotations

import pytest

from wan_remote.redact import redact

WORDS = [
    "API key expired, renew it",
    "Invalid API key provided",
    "the basic subscription allows 2 jobs",
    "bearer authentication is required",
    "Bearer token expired",
    "the key first_frame_image is missing",
    "unknown key num_inference_steps",
    "key wan2.1-flf2v is not one of the models",
]

KEYS = [
    "Bearer gmi-key-3f9a7c51e8d24b60",
    "authorization: bearer  eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.abc",
    "Key 77730_1776946986692727375",
    "Basic dXNlcjE6cGFzc3dvcmQxMjM0",
    "key sk0123456789abcde",
]


@pytest.mark.parametrize("text", WORDS)
def test_ordinary_words_stay(text):
    assert redact(text) == text


@pytest.mark.parametrize("text", KEYS)
def test_what_looks_like_a_key_is_hidden(text):
    kind, value = text.rsplit(maxsplit=1)
    assert redact(f"no: {text}, try again") == f"no: {kind} ***, try again"
    assert value not in redact(text)


def test_text_from_outside_is_cleaned():
    key = "sk-abcdef-123456"
    text = redact(
        f"no {key}\n at https://u:p@h.com/a/b.mp4?X-Sig=1#f Bearer abcdefgh12345678 {'QUJD' * 60} \x1b[31mred\x00",
        (key, ""),
    )
    assert text == "no *** at https://h.com/a/b.mp4 Bearer *** ... [31mred"
    assert len(redact("word " * 1000)) == 500
    assert redact("word " * 1000).endswith("...")
    assert redact("x" * 119) == "x" * 119
