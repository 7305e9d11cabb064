"""Many clips from the command line: a CSV file, a folder, takes; and images by address."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.wan_remote.fault_case import GMI, WAVESPEED, answer
from tests.wan_remote.world import ROOT, image
from wan_remote.cli.progress_line import ProgressLine


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image(seed)).save(path)


@pytest.fixture
def pairs(world):
    world.cloud.always(GMI, {"status": "success", "at_submit": True})
    world.cloud.always(WAVESPEED, {"status": "completed", "at_submit": True})
    folder = world.tmp / "pairs"
    for number in (1, 2, 3):
        draw(folder / f"{number}a.png", number)
        draw(folder / f"{number}b.png", number + 10)
    return folder


def generate(world, provider, *more):
    places = ["--state", str(world.state), "--output", str(world.output)]
    return world.cli(provider, "generate", *more, *places, plain=True)


def table(pairs, text, name="jobs.csv", encoding="utf-8"):
    path = pairs / name
    path.write_bytes(text.encode(encoding))
    return str(path)


TABLE = """first,last,prompt,seed,take,name
1a.png,1b.png,"a crane, unfolding",7,1,crane
2a.png,2b.png,,8,,
3a.png,3b.png,"two
lines",,2,lines
"""


def test_a_table_makes_its_clips_beside_it_and_again_for_nothing(world, pairs):
    jobs = table(pairs, TABLE)
    done = generate(world, GMI, "--jobs", jobs, "--prompt", "of the command line", "--seed", "5")
    assert done.returncode == 0, done.stderr
    *lines, end = done.stdout.splitlines()
    assert end == "clips that are here: 3 of 3"
    assert [line.split()[:3] for line in lines] == [["line", "2", "done"], ["line", "3", "done"], ["line", "5", "done"]]
    made = {(job["body"]["prompt"], job["body"]["seed"]): job["id"] for job in world.cloud.jobs()}
    assert set(made) == {("a crane, unfolding", 7), ("of the command line", 8), ("two\nlines", 5)}
    assert f"{made['a crane, unfolding', 7]}; seed 7" in lines[0]
    kept = world.output / "gmi" / f"{made['a crane, unfolding', 7]}.mp4"
    assert (world.output / "crane.mp4").read_bytes() == kept.read_bytes()
    assert f"{world.output / 'lines_take2.mp4'}; " in lines[2]
    again = generate(world, GMI, "--jobs", jobs, "--prompt", "of the command line", "--seed", "5")
    assert (again.returncode, again.stdout.count("not paid for again"), world.cloud.accepted()) == (0, 3, 3)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8")])
def test_tables_as_spreadsheets_write_them(world, pairs, separator, encoding):
    text = "First,LAST,Prompt\r\n1a.png,1b.png,ein Kranich öffnet sich\r\n,,\r\n".replace(",", separator)
    done = generate(world, GMI, "--jobs", table(pairs, text, encoding=encoding))
    assert done.returncode == 0, done.stderr
    [job] = world.cloud.jobs()
    assert job["body"]["prompt"] == "ein Kranich öffnet sich"


BAD = {
    "seed": ("first,last,prompt,seed\n1a.png,1b.png,p,7\n2a.png,2b.png,p,x\n", "line 3, seed: 'x' is no whole number"),
    "range": ("first,last,prompt,seed\n1a.png,1b.png,p,-2\n", "line 2, seed: seed=-2 can't be used"),
    "image": ("first,last,prompt\n1a.png,9b.png,p\n", "line 2, last: last image"),
    "no image": ("first,prompt\n1a.png,p\n", "line 2, last: no image is named"),
    "prompt": ("first,last\n1a.png,1b.png\n", "line 2, prompt: prompt is empty"),
    "switch": ("first,last,prompt,prompt_extend\n1a.png,1b.png,p,maybe\n", "line 2, prompt_extend: 'maybe' is no"),
    "length": ("first,last,prompt,video-length\n1a.png,1b.png,p,7\n", "line 2, video_length: video_length=7 can't"),
    "column": ("first,last,promt\n1a.png,1b.png,p\n", "line 1, promt: no such column; use first, fit, last, name"),
    "twice": ("first,last,last\n1a.png,1b.png,p\n", "line 1, last: stands there twice"),
    "cells": ("first,last,prompt\n1a.png,1b.png,a crane, unfolding\n", "line 2: has more cells than the header"),
    "name": ("first,last,prompt,name\n1a.png,1b.png,p,../up\n", "line 2, name: '../up' can't be the name of a file"),
    "names": ("first,last,prompt,name\n1a.png,1b.png,p,a\n2a.png,2b.png,p,A\n", "line 3, name: 'A' is that of line 2"),
    "quote": ('first,last,prompt\n1a.png,1b.png,"p"x\n', "it is no CSV"),
    "quote in the header": ('"first"x,last,prompt\n1a.png,1b.png,p\n', "line 1: it is no CSV"),
    "open quote": ('first,last,"prompt\n1a.png,1b.png,p\n', "it is no CSV"),
    "empty": ("first,last,prompt\n", "asks for nothing"),
    "address": ("first,last,prompt\nhttps://a.example/1.png,1b.png,p\n", "line 2, first: first is an address and GMI"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named_before_anything_is_sent(world, pairs, case):
    text, said = BAD[case]
    done = generate(world, GMI, "--jobs", table(pairs, text))
    assert done.returncode == 1
    assert said in done.stderr
    assert "nothing was sent" in done.stderr
    assert world.cloud.records() == []


def test_all_bad_lines_are_told_at_once(world, pairs):
    text = "first,last,prompt,seed\n" + "1a.png,1b.png,p,x\n2a.png,2b.png,p,7\n" * 15
    told = generate(world, GMI, "--jobs", table(pairs, text)).stderr.splitlines()
    assert len([line for line in told if "seed: 'x' is no whole number" in line]) == 15
    text = "first,last,prompt,seed\n" + "1a.png,1b.png,p,x\n" * 30
    assert generate(world, GMI, "--jobs", table(pairs, text)).stderr.splitlines()[-1] == "and 10 more"


def test_a_table_that_is_not_utf_8_says_how_to_save_it(world, pairs):
    text = "first,last,prompt\n1a.png,1b.png,ein Kranich öffnet sich\n"
    done = generate(world, GMI, "--jobs", table(pairs, text, encoding="latin-1"))
    assert "is not UTF-8; save it as such (Excel: CSV UTF-8)" in done.stderr
    assert world.cloud.records() == []


def test_a_folder_of_pairs_with_texts(world, pairs):
    folder = world.tmp / "shots"
    for name, seed in (("shot01", 1), ("shot02", 2)):
        draw(folder / f"{name}_first.png", seed)
        draw(folder / f"{name}-last.PNG", seed + 10)
    (folder / "shot01.txt").write_text("a crane\nunfolds\n")
    (folder / ".DS_Store").write_text("x")
    done = generate(world, GMI, "--jobs", str(folder), "--prompt", "for the others")
    assert done.returncode == 0, done.stderr
    assert {job["body"]["prompt"] for job in world.cloud.jobs()} == {"a crane unfolds", "for the others"}
    assert {path.name for path in world.output.glob("*.mp4")} == {"shot01.mp4", "shot02.mp4"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other_last.png", "other, first: there is no other_first beside other_last.png"),
        ("other.png", "other.png: ends in neither _first nor _last"),
        ("shot_first.jpg", "is a first image of the same name"),
    ],
)
def test_a_image_without_its_other_is_named(world, pairs, name, said):
    folder = world.tmp / "shots"
    for which, seed in (("first", 1), ("last", 2)):
        draw(folder / f"shot_{which}.png", seed)
    draw(folder / name, 3)
    done = generate(world, GMI, "--jobs", str(folder), "--prompt", "p")
    assert (done.returncode, said in done.stderr, world.cloud.records()) == (1, True, [])


def test_takes_are_clips_of_their_own(world, pairs):
    one = ["--first", str(pairs / "1a.png"), "--last", str(pairs / "1b.png"), "--prompt", "p"]
    done = generate(world, GMI, *one, "--takes", "3")
    assert (done.returncode, world.cloud.accepted()) == (0, 3)
    assert len({job["body"]["seed"] for job in world.cloud.jobs()}) == 3
    assert [line.split()[:3] for line in done.stdout.splitlines()[:3]] == [["take", f"{n}", "done"] for n in (1, 2, 3)]
    assert generate(world, GMI, *one, "--take", "2").returncode == 0
    assert world.cloud.accepted() == 3


def test_the_last_take_is_checked_before_the_first_is_bought(world, pairs):
    one = ["--first", str(pairs / "1a.png"), "--last", str(pairs / "1b.png"), "--prompt", "p"]
    done = generate(world, GMI, *one, "--take", "9999", "--takes", "2")
    assert (done.returncode, world.cloud.posts()) == (1, 0)
    assert "take=10000" in done.stderr


def test_takes_of_one_seed_are_not_bought(world, pairs):
    one = ["--first", str(pairs / "1a.png"), "--last", str(pairs / "1b.png"), "--prompt", "p", "--seed", "7"]
    done = generate(world, GMI, *one, "--takes", "3")
    assert (done.returncode, world.cloud.records()) == (1, [])
    assert "3 takes of seed=7 would be the same clip paid 3 times; leave the seed at -1" in done.stderr
    done = generate(world, GMI, "--jobs", table(pairs, TABLE), "--prompt", "p", "--takes", "2")
    assert "line 2, seed: 2 takes of seed=7 would be the same clip" in done.stderr
    assert "line 5, seed" not in done.stderr


def test_a_line_with_another_take_of_a_fixed_seed_is_made_with_a_warning(world, pairs):
    done = generate(world, GMI, "--jobs", table(pairs, TABLE), "--prompt", "p")
    assert (done.returncode, "warning" in done.stderr) == (0, False)  # the second take there draws its seed
    done = generate(world, GMI, "--jobs", table(pairs, TABLE), "--prompt", "p", "--seed", "5")
    assert (done.returncode, done.stderr.count("warning: take 2 of seed=5 asks the cloud for the same clip")) == (0, 1)


def test_one_failure_is_told_at_the_end_and_costs_no_other(world, pairs):
    world.cloud.faults("gmi.submit", answer(GMI, 400, "the prompt is not liked"))
    done = generate(world, GMI, "--jobs", table(pairs, TABLE), "--prompt", "p")
    assert done.returncode == 1
    assert [line.split()[2] for line in done.stdout.splitlines()[:3]].count("failed") == 1
    assert "GMI Cloud refused the request: the prompt is not liked" in done.stdout
    end = done.stdout.splitlines()[-1]
    assert end.startswith("clips that are here: 2 of 3, 1 failed; the same command again goes on")
    assert generate(world, GMI, "--jobs", table(pairs, TABLE), "--prompt", "p").returncode == 0
    assert world.cloud.accepted() == 3


def test_a_killed_list_goes_on_and_nothing_is_paid_again(world, pairs):
    world.cloud.settings(room=2)
    world.cloud.always(GMI, *["processing"] * 20, "success")  # under way when the program is killed
    jobs = table(pairs, TABLE)
    places = ["--state", str(world.state), "--output", str(world.output)]
    run = [sys.executable, "-m", "wan_remote", GMI, "generate", "--jobs", jobs, "--prompt", "p", "--seed", "5", *places]
    with subprocess.Popen(run, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while sorted(world.states()) != ["rejected", "submitted", "submitted"] and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
    assert world.cloud.accepted() == 2
    world.cloud.settings(room=0)
    world.cloud.always(GMI, "success")
    world.cloud.control(finish="success")
    done = generate(world, GMI, "--jobs", jobs, "--prompt", "p", "--seed", "5")
    assert done.returncode == 0, done.stdout
    assert (done.stdout.count("not paid for again"), world.cloud.accepted()) == (2, 3)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "generate needs --first and --last, or --jobs"),
        (["--jobs", "a.csv", "--output", "one.mp4"], "one.mp4 is one file, and several clips are asked for"),
        (["--first", "a", "--last", "b", "--takes", "0"], "'0' is no number of clips"),
    ],
)
def test_what_makes_no_sense_is_wrong_use(world, more, said):
    done = world.cli(GMI, "generate", *more, plain=True)
    assert (done.returncode, said in done.stderr) == (2, True)


# -- images by address ---------------------------------------------------------------------------------------------


def uploaded(world):
    """Where the stand-in keeps two images, as it would be in the open network."""
    assert world.run(world.wavespeed()).end == "result"
    rows = json.loads((world.state / "uploads.json").read_text())
    return [f"https://images.example.com/uploads/{row['url'].rsplit('/', 1)[1]}" for row in rows.values()]


def test_wavespeed_gets_addresses_as_they_are(world, pairs):
    first, last = uploaded(world)
    before = len(world.cloud.records("wavespeed.ticket"))
    one = ["--first", first, "--last", last, "--prompt", "p", "--seed", "7"]
    done = generate(world, WAVESPEED, *one)
    assert done.returncode == 0, done.stderr
    body = world.cloud.jobs()[-1]["body"]
    assert (body["first_image"], body["last_image"]) == (first, last)
    assert len(world.cloud.records("wavespeed.ticket")) == before
    assert "picked up and not paid for again" in generate(world, WAVESPEED, *one).stdout
    assert world.cloud.accepted() == 2
    for path in world.state.rglob("*"):
        assert not path.is_file() or b"images.example.com" not in path.read_bytes()


def test_an_address_and_a_file_go_together(world, pairs):
    first, _ = uploaded(world)
    text = f"first,last,prompt\n{first},1b.png,p\n"
    assert generate(world, WAVESPEED, "--jobs", table(pairs, text)).returncode == 0
    assert world.cloud.jobs()[-1]["body"]["first_image"] == first


@pytest.mark.parametrize(
    ("provider", "address", "more", "said"),
    [
        (GMI, "https://a.example/1.png", [], "first is an address and GMI Cloud takes only files; save the image"),
        (WAVESPEED, "http://a.example/1.png", [], "does not begin with https:// and a host"),
        (WAVESPEED, "ftp://a.example/1.png", [], "does not begin with https:// and a host"),
        (WAVESPEED, "https://me:word@a.example/1.png", [], "it holds a user name, which would be sent along"),
        (WAVESPEED, "https://localhost/1.png", [], "localhost is of this machine or network"),
        (WAVESPEED, "https://192.168.1.5/1.png", [], "192.168.1.5 is of this machine or network"),
        (WAVESPEED, "https://[::1]/1.png", [], "::1 is of this machine or network"),
        (WAVESPEED, "https://[64:ff9b::a00:1]/1.png", [], "64:ff9b::a00:1 is of this machine or network"),
        (WAVESPEED, "https://224.0.0.1/1.png", [], "224.0.0.1 is of this machine or network"),
        (WAVESPEED, "https://127.1/1.png", [], "127.1 is of this machine or network"),
        (WAVESPEED, "https://printer.local./1.png", [], "printer.local. is of this machine or network"),
        (WAVESPEED, "https://a.example/" + "1" * 3000, [], "it is too long"),
        (WAVESPEED, "https://a.example/1.png", ["--fit", "pad"], "fit='pad' can't be done to first, which is"),
    ],
)
def test_an_address_that_the_cloud_can_not_fetch_is_refused(world, pairs, provider, address, more, said):
    one = ["--first", address, "--last", str(pairs / "1b.png"), "--prompt", "p"]
    done = generate(world, provider, *one, *more)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert "word@" not in done.stderr
    assert world.cloud.records() == []


@pytest.mark.parametrize("live", [True, False])
def test_the_progress_of_several_is_one_line(live):
    stream = io.StringIO()
    stream.isatty = lambda: live
    ProgressLine(stream).stage("2 of 5 done, 2 in the cloud, 1 waiting\n3: processing, 12 s\n4: queued", 2, 5)
    assert stream.getvalue().strip() == "2 of 5 done, 2 in the cloud, 1 waiting  40 %"
