"""What is said to a person names nodes, options and files, never the functions of this code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = re.compile(r"\bload_(vae|transformer|text_encoder|image_encoder|model|parts)\b|\bfrom_pretrained\b|`\w+`")


def documentation(tree: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, and the strings below attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def sentences(path: Path) -> Iterator[str]:
    """Every text in a file that has words with spaces between them and is no documentation."""
    tree = ast.parse(path.read_text("utf-8"))
    silent = {id(node) for node in documentation(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            if " " in node.value.strip():
                yield node.value


@pytest.mark.parametrize("room", ["nodes", "wan_local", "wan_remote"])
def test_no_message_names_a_function(room: str) -> None:
    paths = [path for path in (ROOT / room).rglob("*.py") if "cli" not in path.parts]
    found = [(str(path.relative_to(ROOT)), text) for path in paths for text in sentences(path) if FUNCTION.search(text)]
    assert sum(1 for path in paths for _ in sentences(path)) > 50
    assert found == []


def test_errors_are_of_their_library_and_of_no_path() -> None:
    """Wherever a class is written: hosts show the module before its name."""
    from wan_local import errors as local
    from wan_local.parallel.ranks import RankError
    from wan_local.parallel.setup import TooFewCards
    from wan_remote import errors as remote

    for error in (local.WanError, local.InputError, local.WrongModel, RankError, TooFewCards):
        assert error.__module__ == "wan_local"
    for error in (remote.RemoteError, remote.KeyMissing, remote.NoUploads):
        assert error.__module__ == "wan_remote"
