"""How a rank ended and what it wrote: in the error where it says why, in the log whole, never more than a little."""

from __future__ import annotations

import logging
import os
import signal
import sys

import pytest

from tests.wan_local.ranks.groups import group
from wan_local.ranks import RankError, process
from wan_local.ranks.process import Tail, error_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests send signals")

WATCHDOG = """terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG 2 Rank 1] Watchdog caught collective operation timeout: ALLTOALL ran for 600000 ms
Exception raised from checkTimeout at ProcessGroupNCCL.cpp:632 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in libc10.so)
frame #1: <unknown function> + 0xdbbf4 (0x7f in libstdc++.so.6)
frame #2: clone + 0x44 (0x7f in libc.so.6)

"""


def test_an_aborted_rank_says_why(caplog):
    with group("local") as ranks, caplog.at_level(logging.ERROR, "wan_local.ranks"):
        ranks.start()
        with pytest.raises(RankError) as caught:
            ranks.call("abort", WATCHDOG, stage="step 3")
    assert caught.value.rank == 1
    watchdog = "[PG 2 Rank 1] Watchdog caught collective operation timeout: ALLTOALL ran for 600000 ms"
    assert caught.value.cause == f"killed by SIGABRT: what(): {watchdog}"
    (record,) = caplog.records
    assert "rank 1 (cpu) failed at step 3" in record.message
    assert WATCHDOG.strip() in record.message, "the whole of it, for whoever looks into the log"


@pytest.mark.parametrize(
    ("status", "written", "cause"),
    [
        (-signal.SIGABRT, "", "killed by SIGABRT"),
        (-signal.SIGABRT, "CUDA error: misaligned address\n", "killed by SIGABRT: CUDA error: misaligned address"),
        # What it wrote last is not why the system ended it.
        (-signal.SIGKILL, "Error: long ago\n", "killed by SIGKILL (by hand, or by the system for want of memory)"),
        (1, "ImportError: no torch\n", "its process ended with exit status 1: ImportError: no torch"),
        (0, "", "its process ended with exit status 0"),
    ],
)
def test_how_a_process_ended(status, written, cause):
    assert process.exit_cause(status, written.splitlines()) == cause


def test_a_rank_may_print_as_much_as_it_likes(caplog):
    """40 MB: it is neither kept nor in its way, and what comes after it is there."""
    told = "CUDA error: an illegal memory access"
    with group("local", world=1) as ranks, caplog.at_level(logging.ERROR, "wan_local.ranks"):
        ranks.start()
        assert ranks.call("print", 200_000, 200) == [None]
        with pytest.raises(RankError, match=f"killed by SIGABRT: {told}$"):
            ranks.call("abort", f"{told}\n")
    (record,) = caplog.records
    assert 200 < record.message.count("x") < process.TAIL_BYTES, "the end of it alone"


def test_the_end_of_a_stream_and_no_more():
    reader, writer = os.pipe()
    tail = Tail(os.fdopen(reader, "rb", buffering=0), 10)
    os.write(writer, b"0123456789abc")
    os.write(writer, b"def\xff\n")
    os.close(writer)
    assert tail.text(60.0) == "89abcdef�\n"


def test_a_stream_that_somebody_else_holds_open_is_not_waited_for():
    reader, writer = os.pipe()
    tail = Tail(os.fdopen(reader, "rb", buffering=0), 10)
    os.write(writer, b"a\n")
    try:
        assert tail.text(0.5) in ("a\n", "")
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (WATCHDOG, "what(): [PG 2 Rank 1] Watchdog caught collective operation timeout: ALLTOALL ran for 600000 ms"),
        ("Traceback:\n  File x\nImportError: libcuda.so is not there\n", "ImportError: libcuda.so is not there"),
        ("CUDA error: device-side assert\nCompile with TORCH_USE_CUDA_DSA\n\n", "CUDA error: device-side assert"),
        ("Fatal Python error: Aborted\n\nThread 0x7 (most recent call first):\n", "Fatal Python error: Aborted"),
        ("a line\nthe last line\n \n", "the last line"),
        ("", ""),
    ],
)
def test_the_line_that_tells(text, line):
    assert error_line(text.splitlines()) == line
