"""Tidy a prompt as the official code does: mend broken encodings, undo HTML escapes twice, collapse white space."""

from __future__ import annotations

import html
import re


def clean(text: str) -> str:
    """The prompt as the tokenizer should see it (Wan-Video/Wan2.1 ``wan/modules/tokenizers.py``, "whitespace")."""
    import ftfy  # late, as transformers is: ranks read no prompt

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()
