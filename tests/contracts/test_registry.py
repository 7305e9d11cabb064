"""What the registry is given: all that the pack needs and shows, under a size that is named."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
PACKED = ("__init__.py", "nodes", "wan_local", "wan_remote", "js", "locales", "workflows", "subgraphs", "demo")


def setting(name: str) -> str:
    (found,) = re.findall(rf'^{name} = "(.+)"$', PROJECT, re.MULTILINE)
    return found


def left_out() -> list[str]:
    """Folders at the top that are not packed."""
    lines = (ROOT / ".comfyignore").read_text("utf-8").split()
    assert all(re.fullmatch(r"/[\w.]+/", line) for line in lines), "one folder at the top a line"
    return [line.strip("/") for line in lines]


def packed() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git here, which says what is packed")
    files = [Path(name) for name in done.stdout.splitlines()]
    return [path for path in files if path.parts[0] not in left_out() and (ROOT / path).is_file()]


def shown(path: Path) -> str:
    """What a person may come to read who has the package alone: of sources no comments and no docstrings."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    return "\n".join(node.value for node in constants if isinstance(node.value, str))


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "docs/api.md"])
def test_a_page_names_the_folder_that_the_registry_makes(page: str) -> None:
    """Manager and comfy-cli call it by the project's name; only git by that of the repository."""
    folder, text = setting("name"), (ROOT / page).read_text("utf-8")
    assert f"custom_nodes/{folder}`" in text
    assert page == "docs/api.md" or re.search(rf"Wan FLF2V nano model\*.*\b{folder}\b", text)


def test_pip_takes_the_folder_for_its_extras(tmp_path: Path) -> None:
    """setuptools stops at several folders that look like packages, if it is not told which they are."""
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("nodes", "wan_local"):
        (tmp_path / name).mkdir()
    asks = "from setuptools import build_meta; build_meta.get_requires_for_build_wheel()"  # what pip asks first
    done = subprocess.run([sys.executable, "-c", asks], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pictures_of_others_are_told() -> None:
    """Apache-2.0 asks for where they are from and that they were changed."""
    notice = (ROOT / "NOTICE").read_text("utf-8")
    pictures = [path.name for path in (ROOT / "demo").glob("*.png") if not path.name.startswith("nano_")]
    assert pictures
    assert all(f"demo/{name}" in notice for name in pictures)
    assert all("[NOTICE](NOTICE)" in (ROOT / page).read_text("utf-8") for page in ("README.md", "README.zh.md"))


def test_nothing_that_is_packed_speaks_of_what_is_not() -> None:
    """Notes of templates, help pages, texts of nodes, messages and options."""
    path_of = re.compile(rf"\b(?:{'|'.join(left_out())})/[\w./-]*\w")
    for path in packed():
        if path.parts[0] in PACKED and path.suffix in (".py", ".json", ".md"):
            found = [name for name in path_of.findall(shown(ROOT / path)) if (ROOT / name).exists()]
            assert found == [], path


def test_nothing_that_is_packed_imports_what_is_not() -> None:
    loads = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(left_out())})\b", re.MULTILINE)
    for path in packed():
        if path.suffix == ".py":
            assert not loads.search((ROOT / path).read_text("utf-8")), path


def test_the_size_that_is_named_is_the_size() -> None:
    (named,) = re.findall(r"(\d+) MB of files", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    size = sum((ROOT / path).stat().st_size for path in packed()) / 1e6
    assert abs(size - int(named)) < 1, f"{size:.1f} MB"


def test_icon_and_banner_have_the_shape_that_is_shown() -> None:
    for name, shape in (("Icon", 1.0), ("Banner", 21 / 9)):
        address = setting(name)
        start = setting("Repository").replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
        assert address.startswith(start)
        path = ROOT / address.removeprefix(start)
        with Image.open(path) as picture:
            assert picture.width / picture.height == pytest.approx(shape, rel=0.01)
            assert name != "Icon" or picture.width <= 400
        assert path.stat().st_size < 256 * 1024


def test_the_version_is_the_newest_of_the_changelog() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == setting("version")


def test_the_registry_takes_it() -> None:
    comfy = shutil.which("comfy")
    if comfy is None:
        pytest.skip("no comfy-cli on this machine (pip install comfy-cli)")
    command = [comfy, "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
