"""A kernel that is chosen for a run, in the place of the model's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from wan_local.approximations import Approximations
from wan_local.attention import BACKENDS, SparseAttention, choose, sdpa
from wan_local.attention.choose import _verdicts
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser, approximated_run, check_run, velocity_of
from wan_local.errors import InputError
from wan_local.model import WanTransformer
from wan_local.sampling import Cond, make_sampler

CONFIG = TransformerConfig(
    dim=24, ffn_dim=32, num_heads=1, num_layers=2, text_dim=16, freq_dim=32, text_len=4, image_dim=20, image_tokens=10,
)  # fmt: skip
CONDS = [Cond(condition=torch.zeros(1, 20, 2, 4, 4), text=torch.randn(1, 4, 16), image=torch.randn(1, 10, 20))] * 2


@pytest.fixture
def sage(monkeypatch: pytest.MonkeyPatch):
    """An 8-bit kernel that runs here, and how many keys it was asked to read."""
    _verdicts.clear()
    keys: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys.append(k.shape[1])
        return sdpa.attend(q, k, v) * 1.01

    fake = SimpleNamespace(
        NAME="sage", TOLERANCE=8e-2, why_not=lambda: None, rejects=lambda q, k: None, attend=attend
    )  # fmt: skip
    monkeypatch.setitem(BACKENDS, "sage", fake)
    yield keys
    _verdicts.clear()


def test_it_reads_tokens_text_and_images_under_both_prompts(sage: list[int]) -> None:
    torch.manual_seed(0)
    model = WanTransformer(CONFIG, attend=lambda q, k, v: pytest.fail("the model's own")).requires_grad_(False)
    sampler = make_sampler("unipc", 4, 5.0)
    denoisers = [Denoiser(transformer=model)]
    run = approximated_run(Approximations(attention="sage"), sampler, denoisers)
    velocity_of(denoisers, CONDS, 3.0, approximated=run)(torch.randn(1, 16, 2, 4, 4), 900.0)
    assert sage == [8, 4, 10] * 2 * CONFIG.num_layers


def test_given_images_are_exact_all_the_same(sage: list[int]) -> None:
    """Sparse attention takes the best exact kernel for them, where the model's own approximates."""
    exact = SparseAttention(choose("sage"), 1.0, 10_000)
    q = torch.randn(1, 8, 1, 128)
    assert torch.equal(exact(q, q, q), sdpa.attend(q, q, q))
    assert not sage


def test_one_that_is_not_there_is_refused_before_anything_long() -> None:
    if BACKENDS["ck_int8"].why_not() is None:
        pytest.skip("this machine has it")
    denoisers = [Denoiser(transformer=SimpleNamespace(config=CONFIG))]
    with pytest.raises(InputError, match="attention='ck_int8' can't be used here: .*comfy_kitchen"):
        check_run(Approximations(attention="ck_int8"), denoisers, 8, torch.device("cpu"))
    with pytest.raises(InputError, match="attention='sdpa' is not known here; use sage or ck_int8"):
        Approximations(attention="sdpa")
