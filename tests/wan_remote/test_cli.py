"""The command line: what it takes, prints and refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.wan_remote.fault_case import GMI, WAVESPEED
from tests.wan_remote.journals import entry
from wan_remote.cli import commands, main
from wan_remote.errors import InvalidRequest
from wan_remote.journal import Journal

MODEL = "Wan-AI_Wan2.1-FLF2V-14B-720P"


def sent(world, route: str) -> dict[str, Any]:
    [record] = world.cloud.records(route, full=True)
    return record


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_generate_writes_the_file_and_tells_the_id(world, provider):
    done_word = {GMI: "success", WAVESPEED: "completed"}[provider]
    world.cloud.plan(provider, {"status": done_word, "at_submit": True}, done_word)
    done = world.command(provider)
    assert done.returncode == 0, done.stderr
    [path] = world.output.rglob("*.mp4")
    [job] = world.cloud.jobs()
    assert job["id"] in done.stdout + done.stderr
    assert str(path) in done.stdout
    world.assert_no_key(done.stdout + done.stderr)


def test_command_line_reads_the_account(world):
    world.cloud.always(GMI, "success")
    assert world.run(world.gmi()).end == "result"
    job = world.cloud.jobs()[0]["id"]
    for arguments, word in [
        (["gmi", "list"], job),
        (["gmi", "models"], "other-model-1"),
        (["gmi", "model"], "First-last-frame"),
        (["gmi", "status", job], "succe"),
        (["wavespeed", "balance"], "12.5"),
        (["wavespeed", "models"], "wavespeed-ai/wan-flf2v"),
        (["wavespeed", "price"], "0.3"),
    ]:
        done = world.cli(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert word in done.stdout, (arguments, done.stdout)
        world.assert_no_key(done.stdout + done.stderr)
    assert sent(world, "gmi.list")["query"] == {"model_id": MODEL}
    assert sent(world, "gmi.model")["raw_path"] == f"/apikey/models/{MODEL}"
    assert sent(world, "wavespeed.price")["json"]["model_id"] == "wavespeed-ai/wan-flf2v"


def test_command_line_lists_wavespeed(world):
    assert world.run(world.wavespeed()).end == "result"
    done = world.cli("wavespeed", "list")
    assert done.returncode == 0, done.stderr
    assert world.cloud.jobs()[0]["id"] in done.stdout
    body = sent(world, "wavespeed.list")["json"]
    assert body["page"] == 1
    assert 1 <= body["page_size"] <= 100


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_command_line_fetches_a_job_of_somebody_else(world, provider):
    world.cloud.always(provider, {GMI: "success", WAVESPEED: "completed"}[provider])
    assert world.run(world.request(provider)).end == "result"
    job = world.cloud.jobs()[0]
    other = world.tmp / "other"
    done = world.cli(provider, "fetch", job["id"], state=other / "state", output=other / "output")
    assert done.returncode == 0, done.stderr
    [path] = (other / "output").rglob("*.mp4")
    assert path.stat().st_size == job["size"]
    assert world.cloud.posts() == 1


def test_command_line_shows_the_journal(world):
    outcome = world.run(world.gmi())
    done = world.cli("jobs")
    assert done.returncode == 0, done.stderr
    assert outcome.value.request_id in done.stdout
    world.assert_no_key(done.stdout)


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
@pytest.mark.parametrize("job", ["", "../../models", "a b", "x" * 300])
def test_command_line_refuses_an_id_that_is_none(world, provider, job):
    done = world.cli(provider, "fetch", job)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(record["route"] != f"{provider}.models" for record in world.cloud.records())


@pytest.mark.parametrize("provider", [GMI, WAVESPEED])
def test_an_id_that_does_not_exist_is_told_soon(world, provider):
    """Only a job taken a moment ago may be unknown to its cloud for a while."""
    outcome = world.fetch(provider, "no-such-job")
    name = f"{provider}: an id that does not exist is fetched"
    world.check("control", name, outcome, end="JobGone", posts=0, accepted=0, journal=None)
    assert "no-such-job" in str(outcome.error)
    assert world.clock.elapsed < 5


def test_an_id_of_the_other_cloud_is_refused_unasked(world):
    assert world.run(world.gmi()).end == "result"
    asked = len(world.cloud.records())
    outcome = world.fetch(WAVESPEED, world.cloud.jobs()[0]["id"])
    name = "wavespeed: an id of the other cloud is fetched"
    world.check("control", name, outcome, end="InvalidRequest", posts=1, says=("gmi",), journal=None)
    assert len(world.cloud.records()) == asked


def test_command_line_without_a_key_says_where_to_put_it(world):
    done = world.cli("gmi", "list", environment={"GMI_API_KEY": ""})
    assert done.returncode == 1
    assert "GMI_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["gmi"], ["nowhere", "list"], ["gmi", "generate"], []], ids=str)
def test_command_line_wrong_use(world, arguments):
    assert world.cli(*arguments, plain=True).returncode == 2


def test_command_line_wrong_value_is_refused_before_paying(world):
    done = world.command(WAVESPEED, "--size", "1280x720")
    assert done.returncode in (1, 2)
    assert "1280*720" in done.stderr
    assert world.cloud.records() == []


def test_a_key_is_stored_from_the_keyboard_and_never_printed(tmp_path, monkeypatch, capsys):
    for variable in ("GMI_API_KEY", "WAVESPEED_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-typed-123456\n"))
    assert main(["keys", "gmi", "--state", str(tmp_path)]) == 0
    assert main(["keys", "--state", str(tmp_path)]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["keys", "wavespeed", "--state", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert f"gmi: {tmp_path / 'keys.json'}" in shown.out
    assert "wavespeed: not set" in shown.out
    assert "sk-typed" not in shown.out + shown.err
    assert json.loads((tmp_path / "keys.json").read_text()) == {"gmi": "sk-typed-123456"}


@pytest.mark.parametrize("leaving", ["ctrl-c", "ctrl-d", "ctrl-c of windows"])
def test_whoever_is_asked_for_a_key_may_leave(tmp_path, monkeypatch, capsys, leaving):
    def asked(prompt):
        if leaving == "ctrl-c":
            signal.raise_signal(signal.SIGINT)
            return "sk-" + "never" * 9
        raise EOFError if leaving == "ctrl-d" else KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", asked)
    assert main(["keys", "gmi", "--state", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines() == ["stopped"]
    assert list(tmp_path.iterdir()) == []


def test_letters_that_a_file_does_not_know_are_no_traceback(tmp_path, monkeypatch):
    """Windows gives a file the letters of its code page."""
    journal = Journal(folder=tmp_path / "jobs")
    journal.prepare()
    journal.write(entry(parameters={"prompt": "一只纸鹤"}))
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["jobs", "--state", str(tmp_path)]) == 0
    assert r"\u4e00" in out.buffer.getvalue().decode()


def test_images_that_can_not_be_read_are_told_in_one_line(tmp_path, capsys):
    (tmp_path / "page.png").write_text("<html>")
    for name in ("none.png", "page.png"):
        arguments = [
            "gmi",
            "generate",
            "--first",
            str(tmp_path / name),
            "--last",
            str(tmp_path / name),
            "--prompt",
            "p",
        ]
        assert main([*arguments, "--state", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("minutes", ["-5", "0", "nan", "-inf", "soon", ""])
def test_no_patience_is_refused_before_paying(world, minutes):
    done = world.command(GMI, f"--wait={minutes}")
    assert done.returncode == 2
    assert f"--wait: {minutes!r} is no time to wait; give minutes, more than 0" in done.stderr
    assert world.cloud.records() == []


@pytest.mark.parametrize("minutes", ["0.5", "90", "inf"])
def test_some_patience_is_taken(world, minutes):
    world.cloud.plan(WAVESPEED, {"status": "completed", "at_submit": True})
    assert world.command(WAVESPEED, "--wait", minutes).returncode == 0


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("mode", ["I;16", "L", "RGBA"])
def test_an_image_of_16_bits_or_turned_is_what_it_looks_like(tmp_path, kind, mode):
    grey = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27  # 0 to 64773
    drawn = Image.fromarray(grey) if mode == "I;16" else Image.fromarray((grey // 257).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    drawn.save(tmp_path / f"image.{kind}", exif=exif)
    read = commands._image("first", tmp_path / f"image.{kind}")
    upright = np.rot90(grey / 257.0, -1)
    assert read.shape == (60, 40, 4)
    assert np.abs(read[..., :3] - upright[..., None]).max() <= 1.0
    assert read[..., 3].min() == 255


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_an_image_of_any_range_is_refused(tmp_path, kind):
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "image.tif")
    with pytest.raises(InvalidRequest, match="first image .* save it as 8 bit"):
        commands._image("first", tmp_path / "image.tif")


def test_a_named_file_that_somebody_edited_is_left_as_it_is(world):
    world.poll_soon()
    world.cloud.always(GMI, "success")
    target = world.tmp / "crane.mp4"
    first, other = (["--output", str(target), "--seed", seed] for seed in ("7", "8"))
    for given in (first, other, first):  # copies of our own take each other's place
        assert world.command(GMI, *given).stdout.startswith(f"{target}\n")
    target.write_bytes(b"cut and coloured")
    told = world.command(GMI, *other)
    assert (told.returncode, target.read_bytes()) == (0, b"cut and coloured")
    assert f"{target} was changed since and is left as it is" in told.stdout
    assert not told.stdout.startswith(str(target))
    os.utime(target, (1.0, 1.0))  # an old one was to be replaced
    assert world.command(GMI, *other).stdout.startswith(f"{target}\n")
    assert world.cloud.accepted() == 2


def test_the_command_line_has_takes(world):
    world.cloud.always("gmi", "success")
    for more in ((), ("--take", "2"), ("--take", "2"), ()):
        assert world.command(GMI, *more).returncode == 0
    assert world.cloud.accepted() == 2
    told = world.cli("jobs").stdout
    assert "take 1" in told
    assert "take 2" in told


@pytest.mark.parametrize(("seed", "take", "warned"), [("7", "2", True), ("7", "1", False), ("-1", "2", False)])
def test_another_take_of_a_fixed_seed_is_made_with_a_warning(world, seed, take, warned):
    world.cloud.always(GMI, {"status": "success", "at_submit": True})
    done = world.command(GMI, "--seed", seed, "--take", take)
    assert (done.returncode, world.cloud.accepted()) == (0, 1)
    assert ("warning: take 2 of seed=7 asks the cloud for the same clip as take 1" in done.stderr) is warned
