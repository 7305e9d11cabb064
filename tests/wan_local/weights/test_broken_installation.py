"""transformers that is installed and broken: the message is about the installation, not about the files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import transformers

from tests import tiny
from wan_local import weights
from wan_local.errors import WeightsError, WrongModel

ROOT = Path(__file__).parents[3]
WHAT = {
    "UMT5EncoderModel": weights.load_text_encoder,
    "CLIPVisionModel": weights.load_image_encoder,
    "AutoTokenizer": weights.load_text_encoder,
}


class Broken:
    """What transformers does when a model's module can't be imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> object:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError(
                f"Could not import module '{self.name}'. Are this object's requirements defined correctly?"
            ) from error

    def __call__(self, *_: object, **__: object) -> object:
        return self.anything


@pytest.mark.parametrize("name", WHAT)
def test_a_package_that_can_not_be_imported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_pipeline(tmp_path)
    monkeypatch.setattr(transformers, name, Broken(name))
    monkeypatch.setitem(sys.modules, "transformers", transformers)  # whoever imported it anew before
    with pytest.raises(WeightsError) as caught:
        WHAT[name](tmp_path)
    message = str(caught.value)
    assert f"Could not import module '{name}'" in message
    assert "operator torchvision::nms does not exist" in message
    assert "transformers, which is installed and can't be imported" in message
    assert "pip install" in message
    assert "download" not in message
    assert "\n" not in message
    assert not isinstance(caught.value, WrongModel)


@pytest.mark.parametrize("load", [weights.load_text_encoder, weights.load_image_encoder])
def test_a_package_that_is_not_there(
    load: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_pipeline(tmp_path)

    def find(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", find)
    with pytest.raises(WeightsError, match="needs transformers, which is not installed; .*pip install transformers"):
        load(tmp_path)


def test_a_transformers_that_takes_no_torch_as_old_as_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported all the same, with stand-ins for its models that raise when they are made."""
    tiny.write_pipeline(tmp_path)

    def absent(*_: object) -> None:
        raise ImportError("CLIPVisionModel requires the PyTorch library but it was not found in your environment.")

    monkeypatch.setattr(transformers, "CLIPVisionModel", absent)
    monkeypatch.setattr(transformers, "is_torch_available", lambda: False)
    monkeypatch.setitem(sys.modules, "transformers", transformers)  # whoever imported it anew before
    with pytest.raises(WeightsError, match=r"does not work with torch .*; bring a newer torch, or `pip install"):
        weights.load_image_encoder(tmp_path)


def test_a_python_without_torch_is_told_in_one_line(tmp_path: Path) -> None:
    """As the system's own is, which `python` may be in a shell that knows nothing of ComfyUI."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    command = [sys.executable, "-m", "wan_local", "inspect", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"python -m wan_local: torch is not installed in {sys.executable}; use the Python")
    assert len(done.stderr.splitlines()) == 1
