"""What is said to a person names nodes, options and files, never the functions of this code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = re.compile(r"\bload_(vae|transformer|text_encoder|image_encoder|model|parts)\b|\bfrom_pretrained\b|`\w+`")
COUNTED = ("clip", "frame", "image", "step", "prompt", "tensor", "parameter", "forward", "part", "job")
PLURAL = re.compile(rf" ({'|'.join(COUNTED)})s\b")
# What is followed by a plural and is never one: a constant, or a number above one by what was asked before.
NEVER_ONE = {"TEMPORAL_STRIDE", "MAX_TENSORS", "self.carried", "own.steps", "len(outcomes)"}


def silent(tree: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, strings below attributes, and the names in ``__all__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        if isinstance(node, ast.Assign) and "__all__" in [ast.unparse(target) for target in node.targets]:
            yield from ast.walk(node.value)


def texts(path: Path) -> Iterator[str]:
    """Every text in a file that somebody may come to see, or parts of it."""
    tree = ast.parse(path.read_text("utf-8"))
    unseen = {id(node) for node in silent(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unseen:
            yield node.value


@pytest.mark.parametrize("room", ["nodes", "wan_local", "wan_remote"])
def test_no_message_names_a_function(room: str) -> None:
    paths = [path for path in (ROOT / room).rglob("*.py") if "cli" not in path.parts]
    found = [(str(path.relative_to(ROOT)), text) for path in paths for text in texts(path) if FUNCTION.search(text)]
    assert sum(1 for path in paths for _ in texts(path)) > 50
    assert found == []


@pytest.mark.parametrize("room", ["nodes", "wan_local", "wan_remote"])
def test_nothing_is_counted_as_one_clips(room: str) -> None:
    """:func:`wan_local.words.counted` writes a number with what it counts."""
    found = [
        f"{path.relative_to(ROOT)}: {ast.unparse(number.value)}{word.value}"
        for path in (ROOT / room).rglob("*.py")
        for text in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(text, ast.JoinedStr)
        for number, word in pairwise(text.values)
        if isinstance(number, ast.FormattedValue) and isinstance(word, ast.Constant)
        if PLURAL.match(word.value) and ast.unparse(number.value) not in NEVER_ONE
    ]
    assert found == []


def test_errors_are_of_their_library_and_of_no_path() -> None:
    """Wherever a class is written: hosts show the module before its name."""
    from wan_local import errors as local
    from wan_local.parallel.setup import TooFewGPUs
    from wan_local.ranks import RankError
    from wan_remote import errors as remote

    for error in (local.WanError, local.InputError, local.WrongModel, RankError, TooFewGPUs):
        assert error.__module__ == "wan_local"
    for error in (remote.RemoteError, remote.KeyMissing, remote.NoUploads):
        assert error.__module__ == "wan_remote"
