"""Bodies: packed though nobody asked for it, bombs, and lists that repeat every image."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wan_remote.raw_server import answering, raw_server
from tests.wan_remote.test_exchanges import SECRET
from tests.wan_remote.test_stand_in import gmi_body, gmi_submit
from wan_remote.transport import Answer, Api, Call, Failure, Lost, bodies

MIB = 2**20
RECORD = b'{"request_id": "a-1", "status": "queued"}'


def ask(body: bytes, *headers: str) -> Answer | Lost:
    with raw_server(answering(body, *headers)) as raw:
        return Api(raw.address, SECRET).call(Call(method="GET", path="/jobs", read=10.0))


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # without the second of its making, which would be part of a test's name


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# -- packed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ("gzip", gzipped(RECORD)),
        ("X-GZIP", gzipped(RECORD)),
        ("deflate", zlib.compress(RECORD)),
        ("deflate", raw_deflate(RECORD)),
        ("identity", RECORD),
    ],
)
def test_a_packed_answer_is_read(how, body):
    answer = ask(body, f"Content-Encoding: {how}")
    assert isinstance(answer, Answer)
    assert answer.body == RECORD


@pytest.mark.parametrize(
    ("how", "body", "why"),
    [
        ("br", RECORD, "its answer is packed in a way that was not asked for"),
        ("gzip, gzip", gzipped(gzipped(RECORD)), "its answer is packed in a way that was not asked for"),
        ("gzip", RECORD, "its answer can't be unpacked"),
        ("gzip", gzipped(RECORD)[:-9], "its answer is cut short"),
    ],
)
def test_what_can_not_be_unpacked_is_no_answer(how, body, why):
    assert ask(body, f"Content-Encoding: {how}") == Lost(failure=Failure.LOST, why=why)


@pytest.mark.parametrize("filler", [b" ", b'"'])
def test_a_bomb_is_an_error_and_takes_no_memory(monkeypatch, filler):
    monkeypatch.setattr(bodies, "MOST_BYTES", MIB)
    monkeypatch.setattr(bodies, "MOST_READ", 64 * MIB)
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = packer.compress(b'{"a": ' + filler)
    bomb += b"".join(packer.compress(b"a" * MIB) for _ in range(80)) + packer.flush()
    tracemalloc.start()
    answer = ask(bomb, "Content-Encoding: gzip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(answer, Answer)
    assert answer.body is None
    assert peak < 8 * MIB


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_job_is_made_and_fetched_where_everything_comes_packed(world, how):
    for route in ("gmi.submit", "gmi.status", "file"):
        world.cloud.faults(route, {"kind": "pack", "text": how, "times": 0})
    outcome = world.run(world.gmi())
    world.check("poll", f"gmi: every answer packed ({how})", outcome, end="result", posts=1)


# -- long strings -----------------------------------------------------------------------------------------------------

PLAIN = st.text(max_size=40)
VALUES = st.recursive(
    st.none() | st.integers() | PLAIN | st.sampled_from(['"', "\\", '\\"', 'x\\\\"', "é" * 30, "A" * 200]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=12,
)


def emptied(value: Any, longest: int, plain: bool) -> Any:
    def short(text: str) -> str:
        return text if len(json.dumps(text, ensure_ascii=plain).encode("utf-8", "surrogatepass")) - 2 <= longest else ""

    if isinstance(value, str):
        return short(value)
    if isinstance(value, list):
        return [emptied(item, longest, plain) for item in value]
    if isinstance(value, dict):
        return {short(name): emptied(item, longest, plain) for name, item in value.items()}
    return value


@settings(deadline=None, max_examples=150)
@given(VALUES, st.integers(0, 60), st.integers(1, 90), st.booleans())
def test_only_long_strings_are_emptied_wherever_the_pieces_end(value, longest, step, plain):
    text = json.dumps(value, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    found = b"".join(bodies.without_long_strings(parts, longest))
    assert json.loads(found.decode("utf-8", "surrogatepass")) == emptied(value, longest, plain)


def test_text_that_is_no_json_comes_through():
    page = [b'<a href="x">"', b"never closed"]
    assert b"".join(bodies.without_long_strings(page)) == b"".join(page)


def test_a_list_that_repeats_its_images_takes_no_memory():
    rows = [{"request_id": f"a-{n}", "payload": {"first_frame_image": "A" * 4 * MIB}} for n in range(12)]
    body = json.dumps({"requests": rows}).encode()
    assert len(body) > 48 * MIB
    tracemalloc.start()
    answer = ask(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(answer, Answer)
    assert [row["request_id"] for row in answer.json()["requests"]] == [f"a-{n}" for n in range(12)]
    assert peak < 4 * MIB


def test_a_lost_submission_is_found_in_a_list_that_repeats_every_image(world):
    for number in range(11):
        assert gmi_submit(world.cloud, gmi_body(prompt=f"job {number}")).status_code == 200
    world.cloud.settings(list_image=2_000_000)
    world.cloud.faults("gmi.submit", {"kind": "reset", "accept": True})
    outcome = world.run(world.gmi())
    world.check("submit", "gmi: lost, and the list is 48 MB of images", outcome, end="result", posts=12, accepted=12)


def test_more_than_any_list_has_is_an_error(monkeypatch):
    monkeypatch.setattr(bodies, "MOST_READ", 100)
    answer = ask(b'{"a": "' + b"A" * 200 + b'"}')
    assert isinstance(answer, Answer)
    assert answer.body is None
