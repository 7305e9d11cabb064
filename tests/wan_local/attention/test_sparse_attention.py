"""Sparse attention: given images exact, the rest near, by the reference that comfy-kitchen has for CPUs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tests.wan_local.attention.sparse_here import needs_sparse
from tests.wan_local.test_generate import make_pipeline
from wan_local import kitchen, notices
from wan_local.approximations import Approximations
from wan_local.approximations.run import ApproximatedRun
from wan_local.attention import Sparse, SparseAttention, sdpa, sparse
from wan_local.config import TransformerConfig
from wan_local.denoiser import Denoiser, pair_of, velocity_of
from wan_local.errors import Cancelled, InputError, NumericError
from wan_local.longer import Longer
from wan_local.model import WanTransformer
from wan_local.model.rope import apply_rope, rope_table
from wan_local.sampling import Cond, cond_velocity, denoise, make_sampler
from wan_local.sampling.cond import given_frames
from wan_local.settings import Settings

pytestmark = needs_sparse

GRID, HEADS, WIDTH = (6, 10, 8), 2, 128  # 480 tokens: 7.5 blocks of 64
FRONT = 160  # both ends: 2.5 blocks
CONFIG = TransformerConfig(
    dim=WIDTH, ffn_dim=160, num_heads=1, num_layers=2, text_dim=16, freq_dim=32, text_len=4, image_dim=20,
    image_tokens=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_known():
    sparse._kernels.clear()
    yield
    sparse._kernels.clear()


def smooth_qkv(sharp: float = 2.3, batch: int = 1) -> list[Tensor]:
    """Rows that change slowly over the clip and are turned by their place, as a model's are; the ends in front."""
    t, h, w = GRID
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(3, batch, HEADS * WIDTH, 2, 3, 2, generator=generator)
    rows = nn.functional.interpolate(coarse.flatten(0, 1), size=GRID, mode="trilinear").view(3, batch, -1, t * h * w)
    rows = rows + 0.1 * torch.randn(rows.shape, generator=generator)
    rows = rows.transpose(2, 3).contiguous().unflatten(-1, (HEADS, WIDTH))  # [3, B, L, N, K]
    q, k, v = rows / rows.std() * torch.tensor([sharp, sharp, 1.0]).view(3, 1, 1, 1, 1)
    table = rope_table(GRID, WIDTH, q.device)
    moved = sparse_order().put
    return [moved(apply_rope(q, table), 1), moved(apply_rope(k, table), 1), moved(v, 1)]


def sparse_order():
    from wan_local.model.token_order import TokenOrder

    return TokenOrder(GRID, (0, GRID[0] - 1))


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_rows_of_given_images_are_those_of_dense_attention_and_the_others_near() -> None:
    q, k, v = smooth_qkv(batch=2)
    dense = sdpa.attend(q, k, v)
    found = SparseAttention(sdpa.attend, 1.0, FRONT)(q, k, v)
    assert error(found[:, :FRONT], dense[:, :FRONT]) < 1e-5
    assert 1e-3 < error(found[:, FRONT:], dense[:, FRONT:]) < 0.2
    without = SparseAttention(sdpa.attend, 1.0, 0)(q, k, v)
    assert error(without[:, FRONT:], dense[:, FRONT:]) > error(found[:, FRONT:], dense[:, FRONT:])
    assert error(without[:, :FRONT], dense[:, :FRONT]) > 1e-3


def test_every_query_reads_the_given_images_exactly() -> None:
    """A key that stands out within its block is lost in the mean of a block, but not in front."""
    q, k, v = (torch.zeros(1, 640, 1, WIDTH) for _ in range(3))
    q[..., 0], k[:, 3, :, 0], k[:, 300, :, 0], v[:, 3, :, 1], v[:, 300, :, 2] = 1.0, 160.0, 160.0, 1.0, 1.0
    found = SparseAttention(sdpa.attend, 4.0, 64)(q, k, v)[0, 500, 0]
    dense = sdpa.attend(q, k, v)[0, 500, 0]
    assert dense[1] == pytest.approx(0.5, abs=1e-3)
    assert found[1] > 0.9
    assert found[2] < 0.1


def test_padding_behind_the_last_token_stays_its_twin() -> None:
    q, k, v = smooth_qkv()
    attend = SparseAttention(sdpa.attend, 1.0, FRONT)
    found = attend(torch.cat([q, q[:, -1:], q[:, -1:]], dim=1), k, v)
    assert torch.equal(found[:, :-2], attend(q, k, v))
    assert torch.equal(found[:, -2:], found[:, [-3, -3]])


def test_a_lower_tau_is_nearer() -> None:
    q, k, v = smooth_qkv()
    dense = sdpa.attend(q, k, v)
    errors = [error(SparseAttention(sdpa.attend, tau, FRONT)(q, k, v), dense) for tau in (4.0, 1.0, 0.0, -1e9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5


def test_rows_that_lie_askew_are_put_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = smooth_qkv()
    askew = torch.empty(q.numel() + 1)[1:].view_as(q).copy_(q)  # 4 bytes behind where 16 divide
    uneven = torch.empty(1, 480, HEADS, WIDTH + 1)[..., :WIDTH].copy_(k)
    seen: list[Tensor] = []

    def kernel(*rows: Tensor, **options) -> Tensor:
        seen.extend(rows)
        return sdpa.attend(*rows)

    monkeypatch.setattr(kitchen, "installed", lambda: (SimpleNamespace(sol_attn=kernel), ""))
    SparseAttention(sdpa.attend, 1.0, FRONT)(askew, uneven, v)
    assert all(rows.data_ptr() % 16 == 0 and rows.stride(1) % 4 == 0 for rows in seen)
    assert torch.equal(seen[0], q)
    assert seen[2] is v


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ((None, "comfy_kitchen: No module named 'comfy_kitchen'"), r"No module named.*pip install -U comfy-kitchen\)"),
        ((SimpleNamespace(), ""), "has no sparse attention.*pip install -U comfy-kitchen"),
    ],
)
def test_where_it_is_not_installed_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, module, why: str) -> None:
    monkeypatch.setattr(kitchen, "installed", lambda: module)
    with pytest.raises(InputError, match=rf"sparse=1.5 can't be used here: .*{why}; set it to 0"):
        SparseAttention(sdpa.attend, 1.5, FRONT)(*smooth_qkv())


def test_what_it_can_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = [rows[..., :64] for rows in smooth_qkv()]
    with pytest.raises(InputError, match="heads of width 128, and this model's are 64"):
        SparseAttention(sdpa.attend, 1.0, FRONT)(*narrow)
    with pytest.raises(InputError, match="runs on CUDA, not on mps"):
        sparse.check_can_run(1.0, torch.device("mps"), WIDTH)
    monkeypatch.setattr(sparse, "MAX_SCORES", 1000)
    with pytest.raises(InputError, match="on a CPU it writes all scores to memory"):
        SparseAttention(sdpa.attend, 1.0, FRONT)(*smooth_qkv())


@pytest.mark.parametrize("wrong", [torch.zeros_like, lambda q: q * float("nan"), torch.randn_like])
def test_nonsense_is_not_believed(monkeypatch: pytest.MonkeyPatch, wrong) -> None:
    monkeypatch.setattr(
        kitchen, "installed", lambda: (SimpleNamespace(sol_attn=lambda q, k, v, **options: wrong(q)), "")
    )
    with pytest.raises(NumericError, match="sparse=1 gave wrong numbers"):
        SparseAttention(sdpa.attend, 1.0, FRONT)(*smooth_qkv())


# -- a whole model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> WanTransformer:
    torch.manual_seed(1)
    return WanTransformer(CONFIG, attend=sdpa.attend).requires_grad_(False).eval()


def condition(*frames: int) -> Tensor:
    """Of a clip of 6 latent frames, 480 tokens, with images at these."""
    known = torch.randn(1, 20, 6, 20, 16, generator=torch.Generator().manual_seed(2))
    known[:, :4] = 0
    for frame in frames:
        known[:, 3, frame] = 0.5
    return known


def cond(sparse: Sparse | None, *frames: int) -> Cond:
    return Cond(condition=condition(*frames), text=torch.randn(1, 4, 16), image=torch.randn(1, 10, 20), sparse=sparse)


def test_images_that_the_condition_marks_are_those_in_front(model: WanTransformer, monkeypatch) -> None:
    fronts: list[int] = []

    class Spy(SparseAttention):
        def __init__(self, exact, tau: float, front: int) -> None:
            fronts.append(front)
            super().__init__(exact, tau, front)

    monkeypatch.setattr("wan_local.model.transformer.SparseAttention", Spy)
    latents = torch.randn(1, 16, 6, 20, 16)
    for frames in ((0, 5), (0, 3, 5), ()):
        assert given_frames(condition(*frames)) == frames
        cond_velocity(model, cond(Sparse(tau=1.0, min_tokens=480), *frames))(latents, 900.0)
    assert fronts == [160, 240, 0]


def test_short_clips_and_early_steps_are_dense_to_the_bit(model: WanTransformer) -> None:
    latents, dense = torch.randn(1, 16, 6, 20, 16), cond(None, 0, 5)
    expected = cond_velocity(model, dense)(latents, 900.0)
    wanted = {
        "too short": (Sparse(tau=1.0, min_tokens=481), True), "early": (Sparse(tau=1.0, min_tokens=0, below=900), True),
        "late": (Sparse(tau=1.0, min_tokens=480, below=901), False),
    }  # fmt: skip
    for name, (chosen, same) in wanted.items():
        found = cond_velocity(model, replace(dense, sparse=chosen))(latents, 900.0)
        assert torch.equal(found, expected) is same, name
    assert error(found, expected) < 0.2


@pytest.mark.parametrize(("steps", "shift"), [(50, 16.0), (20, 5.0), (4, 16.0), (1, 5.0)])
def test_the_first_fifth_of_the_steps_is_dense(steps: int, shift: float) -> None:
    timesteps = make_sampler("unipc", steps, shift).timesteps
    chosen = Sparse(tau=1.0).over(timesteps)
    dense = [timestep >= chosen.below for timestep in timesteps]
    first = -(-steps // 5)
    assert all(dense[:first])
    assert not any(dense[first:])


def test_steps_of_one_timestep_are_all_dense() -> None:
    """Whole timesteps may repeat, and a model can't tell such steps apart."""
    assert Sparse(tau=1.0).over([999, 998, 998, 997, 500, 400, 300, 200, 100, 50]).below == 998


# -- a run -----------------------------------------------------------------------------------------------------------


def run_of(steps: int, tau: float = 1.0, min_tokens: int = 480) -> ApproximatedRun:
    sampler = make_sampler("unipc", steps, 5.0)
    return ApproximatedRun(Approximations(sparse=tau), sampler, min_tokens=min_tokens)


def test_a_run_uses_it_under_both_prompts_behind_its_first_fifth() -> None:
    """Of two experts too, each with the frames that its own condition marks."""
    asked: list[tuple[float, tuple[int, ...] | None]] = []

    class Model:
        config = replace(CONFIG, image_dim=0)

        def __call__(
            self, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, /, **options
        ) -> Tensor:
            chosen = options.get("sparse")
            asked.append((float(timestep), None if chosen is None else chosen.given))
            return torch.zeros_like(latents[:, :16])

    run = run_of(10)
    conds = [replace(cond(None, 0, 5), image=None, low_condition=condition(0, 3, 5)) for _ in range(2)]
    velocity = velocity_of(pair_of(Model(), Model(), 0.9), conds, 3.0, approximated=run)
    for timestep in run.sampler.timesteps:
        velocity(torch.zeros(1, 16, 6, 20, 16), timestep)
    wanted = [None] * 2 + [(0, 5) if timestep >= 900 else (0, 3, 5) for timestep in run.sampler.timesteps[2:]]
    assert {(0, 5), (0, 3, 5)} < set(wanted)
    assert asked == [
        (timestep, each) for timestep, each in zip(run.sampler.timesteps, wanted, strict=True) for _ in "cu"
    ]


def test_a_run_in_which_it_would_do_nothing_says_so() -> None:
    said: list[str] = []
    with notices.listening(said.append):
        short, quick, long = run_of(10, min_tokens=481), run_of(1), run_of(10)
        assert [each.sparse(480) is None for each in (short, quick, long)] == [True, True, False]
    assert short.told() == "sparse 1: attention sparse in 0 of 10 steps"
    assert long.told() == "sparse 1: attention sparse in 8 of 10 steps"
    assert len(said) == 2
    assert "sparse=1 does nothing: it is for clips of 481 tokens or more, and this one has 480" in said[0]
    assert "finds no step of 1 behind the first fifth" in said[1]


def test_of_a_clip_in_windows_it_is_a_window_that_must_be_long_enough() -> None:
    """4 of 6 latent frames at most, 320 tokens of 480: what it would not do is not counted as done."""

    def model(*inputs: Tensor, sparse: Sparse | None = None) -> Tensor:
        asked.append(sparse is not None)
        return torch.zeros_like(inputs[0][:, :16])

    asked: list[bool] = []
    said: list[str] = []
    model.config = CONFIG
    conds = [replace(cond(None, 0, 5), image=None).in_windows(3, 1, model.config)] * 2
    for least in (321, 320):
        run = run_of(5, min_tokens=least)
        with notices.listening(said.append):
            velocity = velocity_of([Denoiser(transformer=model)], conds, 1.0, approximated=run)
        denoise(velocity, torch.zeros(1, 16, 6, 20, 16), run.sampler)
        assert any(asked) == (least == 320)
        assert run.told() == f"sparse 1: attention sparse in {4 if least == 320 else 0} of 5 steps"
    assert said == ["sparse=1 does nothing: it is for clips of 321 tokens or more, and a window of this one has 320"]


def test_a_clip_whose_windows_are_short_is_not_refused_for_what_they_need() -> None:
    pipeline = make_pipeline(num_heads=1)  # of 24 channels, which it can't be used with
    settings = {"length": 81, "width": 640, "height": 384, "steps": 1, "approximations": Approximations(sparse=1.0)}

    def asked(longer: Longer) -> None:
        def stop(progress: object) -> None:
            raise Cancelled("it began")

        pipeline.generate(torch.rand(3, 16, 16), None, "a", Settings(longer=longer, **settings), stop)

    with pytest.raises(InputError, match="sparse=1 can't be used here"):
        asked(Longer())
    with pytest.raises(Cancelled, match="it began"):
        asked(Longer(way="windows", window=17, overlap=8))


def test_a_model_that_it_is_not_made_for_is_refused_before_its_first_step() -> None:
    narrow = Denoiser(transformer=SimpleNamespace(config=replace(CONFIG, num_heads=2)))
    with pytest.raises(InputError, match="sparse=1 can't be used here: .*this model's are 64"):
        velocity_of([narrow], [cond(None, 0)], 1.0, approximated=run_of(10))
