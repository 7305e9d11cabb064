"""What was paid for reaches the person: from the disk, in whatever container, and the id stands in every error."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import pytest

import wan_remote
from tests.wan_remote.fault_case import BOTH, DONE, POLL, WAITING, WAVESPEED, answer
from tests.wan_remote.stand_in import clips
from tests.wan_remote.world import image
from wan_remote.errors import StorageError
from wan_remote.journal import Journal, fingerprint
from wan_remote.providers.outcomes import video_among
from wan_remote.states import State

PIECE = 200


def video(kind: str, codec: str, width: int, height: int, frames: int) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for shade in range(frames):
            image = np.full((height, width, 3), shade * 3, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


def give(world, monkeypatch, data: bytes) -> None:
    """What is downloaded from now on is this."""
    real = wan_remote.collecting.download

    def download(address, path, **options):
        module = wan_remote.transport.download.__globals__
        part = module["new_part"](path)
        part.write_bytes(data)
        state = module["_State"]()
        for last in (False, True):
            failed = module["_verify"](part, path, state, last=last)
            if failed is None:
                return module["_finish"](part, path, options["stop"])
            part.write_bytes(data) if not last else None
        raise getattr(failed, "final", failed)

    assert real
    monkeypatch.setattr(wan_remote.collecting, "download", download)


def test_a_webm_is_handed_over_under_its_own_name(world, monkeypatch):
    data = video("webm", "libvpx", 128, 72, 81)
    give(world, monkeypatch, data)
    first, again = world.run(world.gmi()), world.run(world.gmi())
    assert (first.end, again.end) == ("result", "result")
    assert first.value.path.suffix == ".webm"
    assert first.value.path.read_bytes() == data
    assert (again.value.path, again.value.resumed) == (first.value.path, True)


def test_stray_bytes_behind_a_video_do_no_harm(world, monkeypatch):
    give(world, monkeypatch, clips.clip(81) + b"\0" * 7)
    assert world.run(world.gmi()).end == "result"


def test_what_can_not_be_read_is_kept_and_told(world, monkeypatch):
    give(world, monkeypatch, bytes(range(256)) * 8)
    outcome = world.run(world.gmi())
    [job] = world.cloud.jobs()
    assert outcome.end == "BadDownload"
    kept = world.output / "gmi" / f"{job['id']}.unread"
    assert kept.read_bytes() == bytes(range(256)) * 8
    assert str(kept) in str(outcome.error)
    assert job["id"] in str(outcome.error)


def test_a_image_is_no_video(world, monkeypatch):
    out = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (64, 64)).save(out, "JPEG")
    give(world, monkeypatch, out.getvalue())
    assert "it is an image" in str(world.run(world.gmi()).error)


def test_a_clip_that_is_not_what_was_asked_for_is_told(world, monkeypatch):
    give(world, monkeypatch, video("mp4", "libx264", 64, 64, 1))
    first, again = world.run(world.gmi()), world.run(world.gmi())
    for outcome in (first, again):
        assert "the clip is 64x64, 0.1 s long (frames: 1), and 1280x720 in 5 s" in outcome.value.note
        assert "1280x720 in 5 s was asked for" in outcome.value.note
        assert any(outcome.value.note in line for line in outcome.lines)


def test_a_clip_that_somebody_edited_is_given_and_not_overwritten(world):
    clip = world.run(world.wavespeed()).value
    edited = clip.path.read_bytes() + b"\0\0\0\x08free"
    clip.path.write_bytes(edited)
    world.advance(8 * 86400)
    world.cloud.faults("wavespeed.result", answer(WAVESPEED, 404, "not found", times=0))
    for _ in range(2):
        again = world.run(world.wavespeed()).value
        assert (again.path.read_bytes(), again.size, again.resumed) == (edited, len(edited), True)
        assert "the file was changed since it was brought here" in again.note
    assert world.states() == ["fetched"]


def test_what_is_no_video_any_more_is_kept_beside_the_one_that_is_brought_again(world):
    clip = world.run(world.wavespeed()).value
    for number in (1, 2):
        clip.path.write_text(f"notes {number}")
        again = world.run(world.wavespeed()).value
        assert (again.path, again.sha256, again.note) == (clip.path, clip.sha256, clip.note)
        assert clip.path.with_suffix(f".before-{number}.mp4").read_text() == f"notes {number}"
    assert world.run(world.wavespeed()).end == "result"
    assert len(list(clip.path.parent.iterdir())) == 3


def test_a_clip_as_asked_for_is_not_spoken_of(world, monkeypatch):
    give(world, monkeypatch, video("mp4", "libx264", 832, 480, 81))
    assert world.run(world.wavespeed()).value.note == ""


@pytest.mark.parametrize(
    ("urls", "found"),
    [
        (["https://x/t.jpg?s=1", "https://x/a.mp4?s=2"], "https://x/a.mp4?s=2"),
        (["https://x/t.PNG", "https://x/clip"], "https://x/clip"),
        (["", "https://x/b.WEBM", "https://x/a.mp4"], "https://x/b.WEBM"),
        (["https://x/t.jpg"], ""),
        (["https://[x/a.mp4"], "https://[x/a.mp4"),
        ([], ""),
    ],
)
def test_the_video_is_found_among_several_outputs(urls, found):
    assert video_among(urls) == found


@pytest.mark.parametrize("state", [State.SUBMITTED, State.DONE])
def test_a_file_that_came_before_a_kill_is_used(world, state):
    """Killed between the rename and the last entry of the journal, and the cloud has long forgotten the job."""
    first = world.run(world.gmi())
    [path] = world.entries()
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "state": state.value, "file": "", "sha256": "", "size": 0}))
    world.cloud.control(reset=True)
    again = world.run(world.gmi())
    assert (again.end, again.value.path, again.value.sha256) == ("result", first.value.path, first.value.sha256)
    assert world.cloud.records() == []
    assert world.states() == ["fetched"]


def test_a_clip_that_a_run_with_another_output_folder_brought_is_copied(world):
    """Not downloaded again, which fails once its address has expired; and each run has it below its own folder."""
    first, other = world.run(world.gmi()), world.tmp / "other"
    again = world.run(world.gmi(), output=other)
    assert (again.end, again.value.resumed) == ("result", True)
    assert again.value.path == other / "gmi" / first.value.path.name
    assert again.value.path.read_bytes() == first.value.path.read_bytes()
    first.value.path.unlink()
    assert world.run(world.gmi()).value.path.read_bytes() == again.value.path.read_bytes()
    assert (world.cloud.posts(), len(world.cloud.records("file"))) == (1, 1)


def test_another_fit_that_changes_nothing_is_the_same_clip(world):
    for fit in ("crop", "pad", "stretch"):  # the images are of the clip's size
        assert world.run(world.gmi(fit=fit)).end == "result"
    assert world.cloud.posts() == 1
    assert world.run(world.gmi(first=image(1, 720, 720), fit="crop")).end == "result"
    assert world.run(world.gmi(first=image(1, 720, 720), fit="pad")).end == "result"
    assert world.cloud.posts() == 3


def test_a_clip_of_which_the_fit_was_noted_down_is_found(world):
    """As versions before did, in the name of its entry too."""
    assert world.run(world.gmi()).end == "result"
    [path] = world.entries()
    row = json.loads(path.read_text())
    row["parameters"]["fit"] = "pad"
    names = ("provider", "model", "parameters", "first", "last", "take")
    row["fingerprint"] = fingerprint(*(row[name] for name in names))
    path.unlink()
    old = path.with_name(f"{row['fingerprint']}.json")
    old.write_text(json.dumps(row))
    assert world.run(world.gmi()).value.resumed
    assert (world.cloud.posts(), world.entries()) == (1, [path])
    path.unlink()
    (old.parent / f"{old.stem}.damaged-0").write_text("{")  # it may have been sent, and is looked for
    assert (world.run(world.gmi()).end, world.cloud.posts()) == ("result", 1)


def test_an_id_with_a_colon_names_a_file_that_windows_has_too(world):
    world.cloud.plan("gmi", "success", id="a:b")
    made = world.run(world.gmi())
    assert (made.value.request_id, made.value.path.name) == ("a:b", "a_b.mp4")


def test_a_withheld_clip_is_not_bought_again(world):
    flagged = {"status": "completed", "outputs": [], "has_nsfw_contents": [True]}
    for _ in range(3):
        outcome = world.run(world.wavespeed(), plan=["created", flagged])
        assert outcome.end == "Moderated"
        assert world.cloud.jobs()[0]["id"] in str(outcome.error)
    assert world.cloud.posts() == 1
    assert world.run(world.wavespeed(take=2), plan=["completed"]).end in ("result", "Moderated")
    assert world.cloud.posts() == 2


TROUBLES = {
    "refused poll": lambda p: {POLL[p]: [answer(p, 401, "invalid key")]},
    "no such file": lambda p: {"file": [{"kind": "answer", "status": 410, "times": 0}]},
    "a page for a file": lambda p: {"file": [{"kind": "body", "text": "<html>later</html>", "times": 0}]},
    "unknown to the cloud": lambda p: {POLL[p]: [answer(p, 404, "not found", times=0)]},
    "nameless": lambda p: {POLL[p]: [{"kind": "answer", "json": {"code": 200, "data": {}}, "times": 0}]},
}


@pytest.mark.parametrize("trouble", list(TROUBLES))
@pytest.mark.parametrize("provider", BOTH)
def test_the_id_stands_in_every_error_after_it_was_taken(world, provider, trouble):
    world.cloud.control(faults=TROUBLES[trouble](provider))
    outcome = world.run(world.request(provider), plan=[WAITING[provider], DONE[provider]])
    [job] = world.cloud.jobs()
    assert outcome.end not in ("result", "SubmissionUnknown")
    assert job["id"] in str(outcome.error)


@pytest.mark.parametrize("advises", [True, False])
@pytest.mark.parametrize("words", ["/data/later can't be written", "the disk is full"])
def test_what_to_do_is_said_once_whatever_the_words_of_an_error_are(world, monkeypatch, words, advises):
    def download(*args, **options):
        raise StorageError(words, advises=advises)

    monkeypatch.setattr(wan_remote.collecting, "download", download)
    outcome = world.run(world.gmi())
    [job] = world.cloud.jobs()
    advice = f"; the job {job['id']} is paid for and stays in the cloud: queue the same inputs again"
    assert str(outcome.error) == words + (f" (the job is {job['id']})" if advises else advice)


@pytest.mark.parametrize("provider", BOTH)
def test_it_does_also_if_it_can_not_be_written_down(world, monkeypatch, provider):
    real, full = Journal.write, [True]

    def write(journal, entry):
        if entry.state is State.SUBMITTED and full.pop():
            raise StorageError("the journal can't be written (No space left on device); make room")
        return real(journal, entry)

    monkeypatch.setattr(Journal, "write", write)
    outcome = world.run(world.request(provider))
    [job] = world.cloud.jobs()
    assert outcome.end == "StorageError"
    assert job["id"] in str(outcome.error)
    assert "neither is paid for again" in str(outcome.error)
    monkeypatch.setattr(Journal, "write", real)
    assert world.run(world.request(provider)).value.request_id == job["id"]
    assert world.cloud.posts() == 1
