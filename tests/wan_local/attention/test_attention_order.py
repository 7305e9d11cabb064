"""Which kernel comes first on which GPU, with the GPUs made up."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from wan_local.attention import Chosen, flash, order, sdpa, timing
from wan_local.attention.choose import _verdicts
from wan_local.errors import InputError, NumericError

GPU = torch.device("cuda", 0)
CUDNN, FLASH, EFFICIENT, MATH = sdpa.CUDNN, sdpa.FLASH, sdpa.EFFICIENT, sdpa.MATH


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of some compute capability, with some version of cuDNN and of FlashAttention."""

    def make(capability, cudnn=91900, flash_version=0):
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
        there = SimpleNamespace(why_not=lambda: None if flash_version else "none", version=lambda: flash_version)
        return there

    _verdicts.clear()
    yield make
    _verdicts.clear()


@pytest.mark.parametrize(
    ("capability", "cudnn", "flash_version", "first"),
    [
        ((9, 0), 91900, 0, [CUDNN, FLASH, EFFICIENT, MATH]),
        ((9, 0), 91900, 2, [CUDNN, "package", FLASH]),
        ((9, 0), 91900, 3, ["package", CUDNN, FLASH]),
        ((9, 0), 91500, 0, [FLASH, EFFICIENT, MATH]),  # wrong at some lengths
        ((9, 0), 91500, 2, ["package", FLASH]),
        ((9, 0), None, 0, [FLASH, EFFICIENT, MATH]),
        ((10, 0), 91900, 4, ["package", CUDNN, FLASH]),
        ((10, 3), 91900, 2, [CUDNN, "package"]),
        ((8, 0), 91900, 0, [FLASH, EFFICIENT, MATH]),  # slower there
        ((8, 6), 91900, 2, ["package", FLASH]),
        ((8, 9), 91900, 0, [FLASH, CUDNN, EFFICIENT, MATH]),
        ((12, 0), 91900, 2, ["package", FLASH, CUDNN]),
        ((7, 5), 91900, 0, [EFFICIENT, MATH]),
    ],
)
def test_order_by_capability(gpu, capability, cudnn, flash_version, first):
    there = gpu(capability, cudnn, flash_version)
    found = order.exact(GPU, there)
    named = ["package" if backend is there else backend for backend in found]
    assert named[: len(first)] == first
    assert named.count("package") == bool(flash_version)


def test_other_devices_take_torchs_own_choice(gpu, monkeypatch):
    none = gpu((9, 0))
    assert order.exact(torch.device("cpu"), none) == order.exact(torch.device("mps"), none) == [sdpa]
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert order.exact(GPU, none) == [sdpa]
    assert not order.is_unsettled(GPU)


@pytest.mark.parametrize(
    ("capability", "timed"),
    [((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), False), ((10, 0), True), ((12, 0), True)],
)
def test_where_kernels_are_timed(gpu, capability, timed):
    gpu(capability)
    assert order.is_unsettled(GPU) is timed
    assert not order.is_unsettled(torch.device("cpu"))


@pytest.mark.parametrize(
    ("capability", "module", "version"),
    [
        ((9, 0), "flash_attn_interface", 3),
        ((10, 0), "flash_attn.cute", 4),
        ((9, 0), "flash_attn", 2),
        ((12, 0), "flash_attn", 2),
    ],
)
def test_the_package_made_for_the_gpu(gpu, monkeypatch, capability, module, version):
    """Versions 3 and 4 give the log-sum-exp along."""
    gpu(capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    q = torch.zeros(1, 2, 3, 8)
    for name in ("flash_attn_interface", "flash_attn.cute", "flash_attn"):
        there = ModuleType(name)
        there.flash_attn_func = lambda q, k, v, name=name: q if name == "flash_attn" else (q, None)
        monkeypatch.setitem(sys.modules, name, there if name == module or name == "flash_attn" else None)
    flash.kernel.cache_clear()
    try:
        assert flash.why_not() is None
        assert flash.version() == version
        assert flash.attend(q, q, q) is q
    finally:
        flash.kernel.cache_clear()


def test_what_torchs_kernels_can_not_take(gpu):
    gpu((7, 5))
    tokens = torch.empty(1, 75_600, 40, 128, device="meta")
    short = tokens[:, :300]
    for kernel in (CUDNN, FLASH):
        assert "not torch.float32" in kernel.rejects(tokens, tokens)
        assert "below compute capability 8.0" in kernel.rejects(tokens.half(), tokens.half())
    assert EFFICIENT.rejects(tokens.half(), tokens.half()) is None
    assert "no torch.bfloat16 below compute capability 8.0" in EFFICIENT.rejects(tokens.bfloat16(), tokens.bfloat16())
    assert MATH.rejects(short.bfloat16(), short.bfloat16()) is None
    assert "914 GB of scores" in MATH.rejects(tokens.half(), tokens.half())
    gpu((8, 0))
    assert all(kernel.rejects(tokens.bfloat16(), tokens.bfloat16()) is None for kernel in (CUDNN, FLASH, EFFICIENT))


def test_each_of_torchs_kernels_is_asked_for_by_itself(monkeypatch):
    asked = []

    class Only:
        def __init__(self, kernels):
            asked.append(kernels)

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(sdpa, "sdpa_kernel", Only)
    q = torch.randn(1, 5, 2, 8)
    for kernel in (CUDNN, FLASH, EFFICIENT, MATH):
        assert torch.equal(kernel.attend(q, q, q), sdpa.attend(q, q, q))
    assert asked == [[kernel.kernel] for kernel in (CUDNN, FLASH, EFFICIENT, MATH)]


def test_the_fastest_is_timed_once_and_kept(monkeypatch):
    calls, milliseconds = [], {"slow": 3.0, "fast": 1.0, "broken": float("inf")}

    def backend(name):
        return SimpleNamespace(
            NAME=name, TOLERANCE=1e-3, rejects=lambda q, k: "no" if name == "unfit" else None, why_not=lambda: None,
            attend=lambda q, k, v: calls.append(name) or sdpa.attend(q, k, v),
        )  # fmt: skip

    def measured(one, q, k, v):
        assert q.shape[1] <= timing.ROWS < k.shape[1]
        calls.append(f"{one.NAME} timed")
        return milliseconds[one.NAME]

    monkeypatch.setattr(order, "is_unsettled", lambda device: True)
    monkeypatch.setattr(timing, "milliseconds", measured)
    candidates = [backend(name) for name in ("unfit", "slow", "broken", "fast")]
    attend = Chosen(lambda device: candidates)
    q = torch.randn(1, timing.SHORTEST, 1, 8)
    for _ in range(2):
        attend(q, q, q)
    assert calls == ["slow timed", "broken timed", "fast timed", "fast", "fast"]
    assert list(attend.used.values()) == ["fast"]
    calls.clear()
    attend(q, q[:, :100], q[:, :100])  # too short to matter
    assert calls == ["slow"]


def test_a_kernel_of_torch_that_lies_makes_room_for_the_next(monkeypatch, caplog):
    """cuDNN's way of being wrong: the last rows of a length that 128 does not divide."""

    def forgets_the_end(q, k, v):
        out = sdpa.attend(q, k, v)
        out[:, q.shape[1] // 128 * 128 :] = 0
        return out

    wrong = SimpleNamespace(NAME="a", TOLERANCE=1e-2, rejects=lambda q, k: None, attend=forgets_the_end)
    right = SimpleNamespace(NAME="b", TOLERANCE=1e-2, rejects=lambda q, k: None, attend=sdpa.attend)
    attend = Chosen(lambda device: [wrong, right])
    even, odd = torch.randn(1, 128 * 69, 2, 8), torch.randn(1, 128 * 70 + 3, 2, 8)
    attend(even, even, even)
    assert torch.equal(attend(odd, odd, odd), sdpa.attend(odd, odd, odd))
    assert list(attend.used.values()) == ["a", "b"]
    assert "a is off by" in caplog.text
    _verdicts.clear()
    alone = Chosen(lambda device: [wrong], by_name="a")
    with pytest.raises(NumericError, match="attention='a' is off by"):
        alone(odd, odd, odd)
    _verdicts.clear()
    only = Chosen(lambda device: [wrong])
    with pytest.raises(
        NumericError, match="no attention kernel can be used for 8963 tokens in torch.float32: a is off"
    ):
        only(odd, odd, odd)


def test_bfloat16_on_an_old_gpu_is_answered_with_float16(gpu, monkeypatch):
    there = gpu((7, 5))
    monkeypatch.setattr(order, "of_torch", lambda device, own=order.of_torch: own(GPU))
    q = torch.zeros(1, 30_000, 2, 8, dtype=torch.bfloat16)
    attend = Chosen(lambda device: order.exact(device, there))
    with pytest.raises(InputError, match="below compute capability 8.0, use float16; .* scores"):
        attend(q, q, q)


def test_running_out_of_memory_is_no_lie():
    def full(q, k, v):
        raise torch.OutOfMemoryError("CUDA out of memory")

    backend = SimpleNamespace(NAME="a", TOLERANCE=1e-2, rejects=lambda q, k: None, attend=full)
    q = torch.randn(1, 5, 2, 8)
    with pytest.raises(torch.OutOfMemoryError):
        Chosen(lambda device: [backend])(q, q, q)
    backend.attend = sdpa.attend
    assert torch.equal(Chosen(lambda device: [backend])(q, q, q), sdpa.attend(q, q, q))
