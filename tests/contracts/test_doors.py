"""The rules of the house that a reader relies on, checked by reading the source."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "latent_preview", "nodes", "server"}
OUTSIDE = {"requests", "aiohttp", "urllib", "socket", "http"}
SOCKETS = "wan_local/ranks"  # ranks of several machines meet at an address of their own; the internet is none of it
MAX_FILE, MAX_FUNCTION = 400, 80


def sources(*folders: str) -> list[Path]:
    return sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts
    )


def tracked() -> list[str]:
    """Every file under version control; in a copy without history, every file that is not hidden."""
    if not (ROOT / ".git").exists():
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
        return [name for name in names if not any(part.startswith((".", "__")) for part in name.split("/")[:-1])]
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def outside_package(path: Path, level: int) -> bool:
    """Whether a relative import of this level leaves the library's own folder."""
    return level > len(path.relative_to(ROOT).parts) - 1


@pytest.mark.parametrize("path", sources("wan_local"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_local_library_stands_alone(path):
    allowed = {"socket"} if path.parent == ROOT / SOCKETS else set()
    for level, module in imports(path):
        top = module.split(".")[0]
        assert level or top not in {*HOST, *OUTSIDE, "wan_local", "wan_remote", "training"} - allowed, module
        assert not outside_package(path, level), f"climbs out by {'.' * level}{module}"


def test_the_room_of_the_ranks_needs_errors_alone():
    for path in sources(SOCKETS):
        for level, module in imports(path):
            assert level < 2 or module == "errors", f"{path}: {module}"


NETWORK = {"requests", "urllib3", "socket", "http", "aiohttp", "ssl"}


@pytest.mark.parametrize("path", sources("wan_remote"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_cloud_library_stands_alone_and_one_room_knows_the_network(path):
    for level, module in imports(path):
        top = module.split(".")[0]
        assert level or top not in {*HOST, "torch", "wan_local", "wan_remote", "training"}, module
        assert not outside_package(path, level), f"climbs out by {'.' * level}{module}"
        if "transport" not in path.parts:
            assert level or top not in NETWORK, f"{module} belongs into transport/"


def test_the_cloud_library_prints_only_on_the_command_line():
    for path in sources("wan_remote"):
        if "cli" not in path.parts:
            called = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
            assert "print" not in called, path


@pytest.mark.parametrize("path", sources("nodes"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_host_folder_knows_the_host(path):
    for level, module in imports(path):
        top = module.split(".")[0]
        if path.parent.name != "host":
            assert level or top not in HOST, f"{module} belongs into host/"
        assert level or top not in {*OUTSIDE, "wan_local", "wan_remote"}, module


def test_a_node_is_the_one_class_of_the_file_of_its_name():
    """``WanFLF2VLoadModel`` is in ``load_model.py``, and whatever lies beside the nodes is none."""
    ids = json.loads((ROOT / "tests" / "comfyui" / "node_schemas.json").read_text("utf-8"))
    found = []
    for path in sources("nodes"):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        nodes = [made.name for made in classes if "io.ComfyNode" in [ast.unparse(base) for base in made.bases]]
        assert not nodes or (len(classes) == 1 and path.parent.name == "nodes"), path
        found += [(name, path.stem.replace("_", "")) for name in nodes]
    assert sorted(found) == sorted((name, name.removeprefix("WanFLF2V").lower()) for name in ids)


def test_the_local_library_reads_no_environment_and_prints_nothing():
    for path in sources("wan_local"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if "cli" not in path.parts:  # a program, which heeds what its user has set
                assert name not in ("os.environ", "os.getenv"), path
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {"environ", "getenv"} & {alias.name for alias in node.names}, path
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called != "logging.basicConfig", path
            if "cli" not in path.parts:
                assert called != "print", path


def test_nothing_runs_code_from_data():
    for path in sources("wan_local", "wan_remote", "nodes", "training"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads", "__import__"), path
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("shell") != "True", path
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", path


def test_importing_does_nothing():
    """No output, no file, no GPU; the pack's own module loads nothing but itself until the host asks."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); before = set(sys.modules)\n"
        "import importlib.util as u\n"
        "root = sys.argv[1]\n"
        "spec = u.spec_from_file_location('pack', root + '/__init__.py', submodule_search_locations=[root])\n"
        "module = u.module_from_spec(spec); sys.modules['pack'] = module; spec.loader.exec_module(module)\n"
        "assert not [m for m in sys.modules if m.startswith('pack.')], 'rooms loaded at import'\n"
        "assert 'torch' not in sys.modules\n"
        "import wan_local, wan_local.generate, wan_local.weights, torch\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_sizes():
    """Files and functions stay short enough to be read at one go."""
    files, functions = [], []
    for path in sources("wan_local", "wan_remote", "nodes", "training", "benchmarks"):
        text = path.read_text()
        files.append((len(text.splitlines()), str(path.relative_to(ROOT))))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                functions.append((node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}"))
    print("longest files", sorted(files)[-3:], "longest functions", sorted(functions)[-3:])
    assert max(files)[0] <= MAX_FILE, max(files)
    schemas = [row for row in functions if row[1].endswith(":define_schema")]  # a form is a list, not logic
    assert max(row for row in functions if row not in schemas)[0] <= MAX_FUNCTION


def test_python_is_ascii():
    for path in sources("wan_local", "wan_remote", "nodes", "training", "benchmarks", "tests"):
        assert path.read_text(encoding="utf-8").isascii() or "tests" in path.parts, path


@pytest.mark.parametrize(
    ("folder", "table"),
    [
        ("wan_local/attention", "BACKENDS"),
        ("wan_local/sampling/samplers", "SAMPLERS"),
        ("wan_local/weights/formats", "FORMATS"),
    ],
)
def test_tables_of_contents_name_every_file(folder, table):
    """Every file with a ``NAME`` stands in its folder's table."""
    text = (ROOT / folder / "__init__.py").read_text()
    assert table in text
    members = [path.stem for path in (ROOT / folder).glob("*.py") if "\nNAME = " in path.read_text()]
    assert len(members) >= 3
    for member in members:
        assert member in text, f"{member}.py is not in {folder}/__init__.py"


def test_nothing_names_a_machine():
    words = ["/wor" + "k/", "/roo" + "t/"]
    names = tracked()
    assert any(" " in name for name in names), "names with spaces are names, too"
    for name in names:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json", ".sh", ".js", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not any(word in text for word in words), name


OPTIONAL = ("flash_attn", "flash_attn_interface", "sageattention", "msvcrt", "gguf", "yunchang", "ray")


def test_requirements_are_what_is_imported():
    """Every third-party module the pack imports is in requirements.txt."""
    listed = {line.split(">")[0].split("=")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()}
    modules = {"PIL": "pillow", "urllib3": "requests"}  # urllib3 comes with requests
    for path in sources("wan_local", "wan_remote"):
        for level, module in imports(path):
            top = module.split(".")[0]
            if not level and top not in sys.stdlib_module_names and top not in OPTIONAL:
                assert modules.get(top, top) in listed, f"{path}: {module}"


def test_the_map_in_the_readme_is_the_house():
    """Every folder at the top stands in the README's map, and everything in the map is there."""
    block = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in block.strip().splitlines()}
    for name in named:
        assert (ROOT / name).exists(), name
    folders = {name.split("/")[0] for name in tracked() if "/" in name and not name.startswith(".")}
    tops = {name.split("/")[0] for name in named}
    assert folders <= tops, folders - tops


def test_the_readme_opens_with_the_two_commands():
    opening = (ROOT / "README.md").read_text()[:400]
    assert "make demo" in opening
    assert "make test" in opening
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_few_types_are_any():
    """So that mypy means something; each that is there stands for what has no type, or one per call."""
    trees = [ast.parse(path.read_text()) for path in sources("wan_local")]
    assert sum(isinstance(node, ast.Name) and node.id == "Any" for tree in trees for node in ast.walk(tree)) <= 120
