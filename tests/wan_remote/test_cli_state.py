"""Which journal the command line reads: that of the ComfyUI it lies in, or the one that is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wan_remote.fault_case import GMI
from tests.wan_remote.world import ROOT
from wan_remote.cli.arguments import state_folder


def command(pack: Path, *more: str, home: Path) -> str:
    """What the command line says where it is started in the folder of the pack, as a shell would start it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PWD")}
    environment |= {"XDG_DATA_HOME": str(home), "PWD": str(pack)}
    run = [sys.executable, "-m", "wan_remote", *more]
    done = subprocess.run(run, cwd=pack, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(world, pack: Path, *more: str, home: Path) -> str:
    """The same, in this process."""
    done = world.cli(*more, plain=True, environment={"XDG_DATA_HOME": str(home), "PWD": str(pack)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def comfy(tmp_path):
    (tmp_path / "comfy" / "user").mkdir(parents=True)
    (tmp_path / "comfy" / "custom_nodes").mkdir()
    return tmp_path / "comfy"


@pytest.mark.skipif(sys.platform != "linux", reason="where this machine keeps what programs know has another name")
def test_jobs_are_those_of_the_comfyui_that_the_pack_lies_in(world, comfy):
    private, home = comfy / "user" / "__wan_flf2v", world.tmp / "home"
    world.cloud.always(GMI, {"status": "success", "at_submit": True})
    assert world.run(world.gmi(prompt="from a node"), state=private).end == "result"
    assert world.run(world.gmi(prompt="from elsewhere"), state=home / "wan_flf2v").end == "result"
    link = comfy / "custom_nodes" / "ComfyUI-WanFLF2V"
    link.symlink_to(ROOT, target_is_directory=True)
    first, row, last = command(link, "jobs", home=home).splitlines()
    assert first == f"jobs in {private / 'jobs'}:"
    assert row.endswith("from a node")
    assert last == f"and 1 in another journal, shown by --state {home / 'wan_flf2v'}"
    first, row = said(world, link, "jobs", "--state", str(home / "wan_flf2v"), home=home).splitlines()
    assert (first, row.endswith("from elsewhere")) == (f"jobs in {home / 'wan_flf2v' / 'jobs'}:", True)
    outside = said(world, ROOT, "jobs", "--state", str(comfy), home=home)  # the folder of a ComfyUI will do
    assert outside.splitlines()[0] == f"jobs in {private / 'jobs'}:"
    assert said(world, ROOT, "jobs", home=home).splitlines()[0] == f"jobs in {home / 'wan_flf2v' / 'jobs'}:"


def test_the_folder_of_a_comfyui_means_its_private_folder_before_any_node_has_run(world, comfy):
    private, plain = comfy / "user" / "__wan_flf2v", world.tmp / "plain"
    assert state_folder(str(comfy)) == private
    (comfy / "jobs").mkdir()  # of somebody who kept them there before
    assert state_folder(str(comfy)) == comfy
    private.mkdir()
    assert state_folder(str(comfy)) == comfy, "the same command read another journal from then on, and paid again"
    (private / "jobs").mkdir()
    refused = world.cli("jobs", "--state", str(comfy), plain=True)
    assert refused.returncode == 2
    assert "has two journals; move what is in" in refused.stderr
    assert state_folder(str(plain)) == plain


@pytest.mark.skipif(sys.platform != "linux", reason="where this machine keeps what programs know has another name")
def test_a_folder_of_that_name_elsewhere_is_no_comfyui(world, tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    link = tmp_path / "custom_nodes" / "pack"
    link.symlink_to(ROOT, target_is_directory=True)
    assert (
        said(world, link, "jobs", home=tmp_path / "home") == f"no jobs in {tmp_path / 'home' / 'wan_flf2v' / 'jobs'}\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="where this machine keeps what programs know has another name")
@pytest.mark.parametrize("relative", [".", "data", "../data"])
def test_only_an_absolute_data_folder_counts(world, monkeypatch, relative):
    monkeypatch.setenv("HOME", str(world.tmp))
    assert (
        said(world, ROOT, "jobs", home=Path(relative))
        == f"no jobs in {world.tmp / '.local' / 'share' / 'wan_flf2v' / 'jobs'}\n"
    )
