"""Choosing a kernel: by name or not at all, and never one that gives wrong numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import wan_local.attention as attention
from wan_local.attention import BACKENDS, choose, ck_int8, flash, sage, sdpa
from wan_local.attention.choose import _verdicts
from wan_local.errors import InputError, NumericError

HELPERS = {"backend", "__init__", "choose", "check", "order", "sparse", "timing"}


@pytest.fixture(autouse=True)
def nothing_is_known():
    _verdicts.clear()
    yield
    _verdicts.clear()


def qkv(dtype=torch.float32, batch=2, queries=7, keys=5):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, rows, 3, 16, generator=generator).to(dtype) for rows in (queries, keys, keys))


def fake(attend=sdpa.attend, *, name="flash", why=None, rejects=None, tolerance=1e-3):
    return SimpleNamespace(
        NAME=name, TOLERANCE=tolerance, why_not=lambda: why, rejects=lambda q, k: rejects, attend=attend,
        version=lambda: 2,
    )  # fmt: skip


def noisy(q, k, v):
    return sdpa.attend(q, k, v) + 0.1


def broken(q, k, v):
    raise RuntimeError("no kernel image is available")


def nan(q, k, v):
    return sdpa.attend(q, k, v) * float("nan")


def test_sdpa_is_softmax_attention_in_our_layout():
    q, k, v = qkv(torch.float64)
    scores = torch.einsum("blnk,bsnk->bnls", q, k) / 16**0.5
    expected = torch.einsum("bnls,bsnk->blnk", scores.softmax(-1), v)
    got = sdpa.attend(q, k, v)
    assert got.shape == (2, 7, 3, 16)
    assert (got - expected).abs().max() < 1e-12


def test_the_table_names_every_file_of_the_folder():
    folder = Path(attention.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - HELPERS
    assert set(BACKENDS) == files
    for name, backend in BACKENDS.items():
        assert backend.NAME == name
        assert backend.why_not() is None or isinstance(backend.why_not(), str)


def test_only_sdpa_runs_without_an_nvidia_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    assert choose("auto") is sdpa.attend
    for backend, reason in ((flash, "NVIDIA"), (sage, "NVIDIA"), (ck_int8, "comfy_kitchen")):
        assert reason in backend.why_not()
        with pytest.raises(InputError, match=rf"attention='{backend.NAME}' can't be used here: .*{reason}.*sdpa"):
            choose(backend.NAME)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        InputError, match="attention='xformers' is not known; use auto or one of sdpa, flash, sage, ck_int8"
    ):
        choose("xformers")


def test_a_name_that_cannot_run_is_an_error_not_another_kernel():
    with pytest.raises(InputError, match="not built for this torch"):
        choose("flash", {"sdpa": sdpa, "flash": fake(why="not built for this torch")})


def test_auto_skips_what_cannot_run():
    assert choose("auto", {"sdpa": sdpa, "flash": fake(why="not installed")}) is sdpa.attend


def test_auto_never_takes_a_quantised_kernel():
    assert choose("auto", {"sdpa": sdpa, "sage": fake(name="sage")}) is sdpa.attend


def test_auto_takes_the_best_one_and_checks_it_once():
    calls = []

    def counting(q, k, v):
        calls.append(tuple(q.shape))
        return sdpa.attend(q, k, v)

    attend = choose("auto", {"sdpa": sdpa, "flash": fake(counting)})
    q, k, v = qkv()
    for _ in range(3):
        assert torch.equal(attend(q, k, v), sdpa.attend(q, k, v))
    assert calls == [tuple(q.shape)] * 3  # the first use is what is checked


@pytest.mark.parametrize("wrong", [noisy, nan, broken])
def test_a_wrong_kernel_asked_for_by_name_is_an_error(wrong):
    attend = choose("flash", {"sdpa": sdpa, "flash": fake(wrong)})
    with pytest.raises(NumericError, match="attention='flash' (is off by|failed: no kernel).* use 'auto' or 'sdpa'"):
        attend(*qkv())


@pytest.mark.parametrize("wrong", [noisy, nan, broken])
def test_a_wrong_kernel_under_auto_is_replaced_and_said_so(wrong, caplog):
    attend = choose("auto", {"sdpa": sdpa, "flash": fake(wrong)})
    q, k, v = qkv()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(attend(q, k, v), sdpa.attend(q, k, v))
    assert len([line for line in caplog.messages if "another one is used instead" in line]) == 1


def test_tensors_a_kernel_cannot_take():
    table = {"sdpa": sdpa, "flash": fake(rejects="it takes float16 or bfloat16, not torch.float32")}
    q, k, v = qkv()
    with pytest.raises(InputError, match="attention='flash' can't do this: it takes float16"):
        choose("flash", table)(q, k, v)
    assert torch.equal(choose("auto", table)(q, k, v), sdpa.attend(q, k, v))


def test_the_check_leaves_everyones_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    choose("flash", {"sdpa": sdpa, "flash": fake()})(*qkv())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("backend", [flash, sage, ck_int8])
def test_gpu_kernels_say_what_they_cannot_take(backend):
    q = torch.zeros(1, 2, 3, 64, dtype=torch.bfloat16)
    assert "not on cpu" in backend.rejects(q, q)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("backend", [flash, sage, ck_int8])
def test_gpu_kernels_agree_with_sdpa(backend):
    if backend.why_not() is not None:
        pytest.skip(backend.why_not())
    q, k, v = torch.randn(3, 2, 300, 4, 128, device="cuda", dtype=torch.bfloat16)
    expected = sdpa.attend(q.float(), k.float(), v.float())
    error = (choose(backend.NAME)(q, k, v).float() - expected).norm() / expected.norm()
    print(f"{backend.NAME} against sdpa: L2 {error:.1e}")
    assert error <= backend.TOLERANCE
