"""A cloud is one file: nothing but its own file, its node and the tables of contents names it in code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.contracts.test_messages import silent
from wan_remote.providers import PROVIDERS, Provider
from wan_remote.request import Request

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("wan_remote/__init__.py", "wan_remote/providers/__init__.py", "nodes/__init__.py")
WORDS = [word for cloud in PROVIDERS.values() for word in {cloud.name, cloud.label.lower()}]


def named(tree: ast.AST) -> Iterator[str]:
    """Every name and text in a file but its docstrings."""
    unseen = {id(node) for node in silent(tree)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        for field in ("id", "attr", "name", "module", "arg", "asname", "value"):
            if isinstance(text := getattr(node, field, None), str):
                yield text.lower()


@pytest.mark.parametrize("room", ["wan_remote", "nodes"])
def test_no_other_file_names_a_cloud(room: str) -> None:
    own = {f"{folder}/{name}.py" for folder in ("wan_remote/providers", "nodes") for name in PROVIDERS}
    seen = set()
    for path in sorted((ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        found = [text for text in named(ast.parse(path.read_text("utf-8"))) if any(word in text for word in WORDS)]
        if found:
            seen.add(name)
        assert not found or name in own or name in TABLES, f"{name}: {found}"
    assert {name for name in own if name.startswith(room)} <= seen, "their own files must be found to name them"


@pytest.mark.parametrize("cloud", PROVIDERS.values(), ids=lambda cloud: cloud.name)
def test_every_field_of_a_cloud_is_an_option(cloud: Provider) -> None:
    common = {field.name for field in fields(Request)}
    own = {field.name: field.default for field in fields(cloud.request) if field.name not in common}
    assert {option.field for option in cloud.options} == set(own)
    for option in cloud.options:
        assert (own[option.field] is True) == option.name.startswith("no_"), "a switch is named for what it does"
