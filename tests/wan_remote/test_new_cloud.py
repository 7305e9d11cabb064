"""A cloud is one file: a third one, made up here, runs from request to clip and on the command line without another
line anywhere. What it speaks is what the stand-in understands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import wan_remote
from tests.wan_remote.stand_in.client import GMI_KEY
from tests.wan_remote.world import image
from wan_remote.cli.arguments import parse
from wan_remote.errors import InvalidRequest, KeyMissing
from wan_remote.images import Frame
from wan_remote.job import Job, Status
from wan_remote.keys import Keys
from wan_remote.providers import PROVIDERS
from wan_remote.providers.base import Option, Place, Provider, Question, Reply
from wan_remote.providers.reading import a_dict
from wan_remote.request import Request, check_switch, check_whole
from wan_remote.transport import Answer, Call

QUEUE = "/apikey/requests"
STATUSES = {"queued": Status.QUEUED, "processing": Status.PROCESSING, "success": Status.SUCCEEDED}


@dataclass(frozen=True, kw_only=True, eq=False)
class AuroraRequest(Request):
    seconds: int = 5
    polish: bool = True

    provider: ClassVar[str] = "aurora"
    label: ClassVar[str] = "Aurora Clouds"
    model: ClassVar[str] = "Wan-AI_Wan2.1-FLF2V-14B-720P"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("seconds", self.seconds, 5, 10)
        check_switch("polish", self.polish)

    @classmethod
    def clip_of(cls, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        return 320, 180, parameters["seconds"]


class Aurora(Provider):
    request = AuroraRequest
    options = (
        Option("length", "seconds", "seconds, 5 to 10", "S"),
        Option("no_polish", "polish", "leave the prompt as it is"),
    )
    base, base_variable = "https://api.aurora.example/v1", "AURORA_BASE_URL"
    site, key_variable = "https://aurora.example/keys", "AURORA_API_KEY"
    id_field = "ticket"
    forms = ("url",)
    image_bytes = 1_000_000
    first_poll, least_pause = 0.1, 0.1

    def submission(self, parameters: Mapping[str, Any], seed: int, first: str, last: str) -> Call:
        images = {"first_frame_image": first, "last_frame_image": last}
        words = {"prompt": parameters["prompt"], "prompt_extend": parameters["polish"]}
        payload = {**images, **words, "video_length": parameters["seconds"], "seed": seed}
        return Call(method="POST", path=QUEUE, body={"model": self.model, "payload": payload})

    def status(self, request_id: str) -> Call:
        return Call(method="GET", path=f"{QUEUE}/{request_id}")

    def listing(self, page: int = 1) -> Call | None:
        return Call(method="GET", path=QUEUE, query={"model_id": self.model}) if page == 1 else None

    def listed(self, data: Any) -> Sequence[Any] | None:
        return a_dict(data).get("requests")

    def unwrap(self, answer: Answer) -> Reply:
        data = json.loads((answer.body or b"null").replace(b'"request_id"', b'"ticket"'))  # its own word
        return Reply(status=answer.status, data=data, text=str(a_dict(data).get("error", "")), answer=answer)

    def job(self, record: Any) -> Job:
        row = a_dict(record)
        url, word = a_dict(row.get("outcome")).get("video_url", ""), str(row.get("status"))
        status = STATUSES.get(word, Status.FAILED)
        return Job(id=self.usable_id(row), status=status, word=word, url=url, created=row["created_at"])

    def upload_ticket(self, name: str, frame: Frame) -> Call:
        return Call(method="POST", path="/apikey/upload-url", body={"file_type": frame.kind})

    def place(self, data: Any) -> Place:
        return Place(url=a_dict(data).get("upload_url"), address=a_dict(data).get("public_url"))

    def questions(self, inputs: Mapping[str, Any]) -> Mapping[str, Question]:
        return {"models": Question(call=Call(method="GET", path="/apikey/models"))}


@pytest.fixture
def aurora(world, monkeypatch):
    """Its one line in the table, an address and a key."""
    monkeypatch.setitem(PROVIDERS, "aurora", Aurora())
    monkeypatch.setenv("AURORA_BASE_URL", world.cloud.gmi)
    monkeypatch.setenv("AURORA_API_KEY", GMI_KEY)
    world.cloud.settings(gmi_image_forms=["url"])
    world.cloud.always("gmi", "success")
    return world


def asked(**changes: Any) -> AuroraRequest:
    given = {"first": image(1), "last": image(2), "prompt": "a paper crane unfolds", "seed": 7, **changes}
    return AuroraRequest(**given)


def test_from_request_to_clip_and_fetched_again(aurora):
    outcome = aurora.run(asked())
    assert outcome.end == "result", outcome.text
    aurora.assert_right_file(outcome)
    assert outcome.value.path.parent == aurora.output / "aurora"
    routes = [record["route"] for record in aurora.cloud.records()]
    assert routes[:5] == ["gmi.upload_url", "put", "gmi.upload_url", "put", "gmi.submit"]
    assert (routes[-1], set(routes[5:-1])) == ("file", {"gmi.status"})
    again = aurora.fetch("aurora", outcome.value.request_id, output=aurora.tmp / "elsewhere")
    assert (again.end, aurora.cloud.accepted()) == ("result", 1)
    aurora.assert_right_file(again)
    aurora.assert_no_leak(outcome, again)


def test_its_lost_answer_is_looked_for_and_nothing_is_paid_twice(aurora):
    aurora.cloud.faults("gmi.submit", {"kind": "reset", "accept": True})
    assert aurora.run(asked()).end == "result"
    assert (aurora.cloud.posts(), aurora.cloud.accepted()) == (1, 1)


def test_its_fields_are_checked_like_any_others():
    with pytest.raises(InvalidRequest, match="seconds=11"):
        asked(seconds=11)
    with pytest.raises(InvalidRequest, match="Aurora Clouds takes only files"):
        asked(first="https://a.example/1.png")


def test_its_key_is_asked_for_by_its_own_names(aurora, monkeypatch, tmp_path):
    monkeypatch.delenv("AURORA_API_KEY")
    with pytest.raises(KeyMissing, match=r"make one at https://aurora.example/keys .* AURORA_API_KEY"):
        Keys(folder=tmp_path).resolve("aurora")
    Keys(folder=tmp_path).save("aurora", "key-1")
    assert Keys(folder=tmp_path).resolve("aurora").reveal() == "key-1"


def test_the_command_line_has_its_options(aurora, capsys):
    given = parse(["aurora", "generate", "--first", "a.png", "--last", "b.png", "--length", "10", "--no-polish"])
    assert (given.provider, given.length, given.no_polish) == ("aurora", 10, True)
    with pytest.raises(SystemExit):
        parse(["aurora", "generate", "--help"])
    assert "leave the prompt as it is" in capsys.readouterr().out
    done = aurora.cli(*aurora.generate("aurora", "--length", "10", "--no-polish"), plain=True)
    assert done.returncode == 0, done.stderr
    [sent] = aurora.cloud.records("gmi.submit", full=True)
    payload = sent["json"]["payload"]
    assert (payload["video_length"], payload["prompt_extend"], payload["seed"]) == (10, False, 7)


def test_a_list_of_jobs_has_its_columns(aurora):
    aurora.generate("aurora")  # writes first.png and last.png
    table = aurora.tmp / "shots.csv"
    table.write_text("first,last,prompt,seconds,no_polish\nfirst.png,last.png,one,10,yes\nfirst.png,last.png,two,,\n")
    places = ["--state", str(aurora.state), "--output", str(aurora.output)]
    done = aurora.cli("aurora", "generate", "--jobs", str(table), *places, plain=True)
    assert done.returncode == 0, done.stderr
    sent = [record["json"]["payload"] for record in aurora.cloud.records("gmi.submit", full=True)]
    assert sorted((row["prompt"], row["video_length"], row["prompt_extend"]) for row in sent) == [
        ("one", 10, False), ("two", 5, True),
    ]  # fmt: skip


def test_its_account_is_asked_what_it_answers(aurora):
    done = aurora.cli("aurora", "models")
    assert (done.returncode, "model_ids" in json.loads(done.stdout)) == (0, True)
    done = aurora.cli("aurora", "balance")
    assert done.stderr == "Aurora Clouds can't be asked for balance; use requests or models\n"
    assert aurora.run(asked()).end == "result"
    [row] = json.loads(aurora.cli("aurora", "list").stdout)
    assert aurora.cli("aurora", "status", row["id"]).returncode == 0


def test_many_of_it_at_once(aurora):
    makes = [lambda take=take: asked(take=take) for take in (1, 2, 3)]
    folders = wan_remote.Folders(state=aurora.state, output=aurora.output)
    outcomes = asyncio.run(wan_remote.run_all("aurora", makes, folders=folders, clock=aurora.clock, keys=aurora.keys))
    assert len({clip.request_id for clip in wan_remote.all_of(outcomes)}) == 3
