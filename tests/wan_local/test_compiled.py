"""Compiled blocks: the same numbers, one graph for all of them, and everything that is done to layers still counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.wan_local import compiled_bytes
from tests.wan_local.quantised.float8_here import needs_float8_products
from wan_local import compiled, denoiser, generate, lora, notices
from wan_local.attention import Attend, sdpa
from wan_local.config import TransformerConfig
from wan_local.errors import Cancelled
from wan_local.memory.offload import attach
from wan_local.model import WanTransformer
from wan_local.model.rope import apply_rope, rope_table
from wan_local.model.sequence import Sequence, Whole
from wan_local.parallel.rank_model import Rank
from wan_local.quantised import CastingLayers, Float8, layers, matmul, parameter_shapes
from wan_local.ranks import RankInfo

pytestmark = pytest.mark.long

E4M3 = torch.float8_e4m3fn
ROOT = Path(__file__).parents[2]
TOKENS = 256
SMALL, OTHER, THIRD = (2, 4, 6), (3, 4, 6), (3, 6, 8)  # latent frames, height, width

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")


def model(*, dim: int = 96, seed: int = 0) -> WanTransformer:
    torch.manual_seed(seed)
    config = TransformerConfig(
        dim=dim, ffn_dim=128, num_heads=4, num_layers=3, text_dim=32, image_dim=16, image_tokens=10, text_len=8
    )
    made = WanTransformer(config, operations=CastingLayers, compute_dtype=torch.float32)
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return made.requires_grad_(False).eval()


def ask(transformer: WanTransformer, size: tuple[int, int, int] = SMALL, sequence: Sequence | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.inference_mode():
        return transformer(noise(1, 36, *size), torch.tensor([500.0]), noise(1, 8, 32), noise(1, 10, 16), sequence)


def pack(transformer: WanTransformer) -> None:
    for layer in transformer.blocks.modules():
        if isinstance(layer, layers.Linear):
            scale = (layer.weight.abs().max() / 448).view(1, 1)
            shape = tuple(layer.weight.shape)
            layer.pack((layer.weight / scale).to(E4M3), Float8(shape=shape, dtype=E4M3, scaled=True), scale)


def off(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def told() -> Iterator[list[str]]:
    """What was said in all: a line for every graph that was compiled."""
    torch._dynamo.reset()  # blocks of other files may have been compiled in this process
    lines: list[str] = []
    with notices.listening(lines.append):
        yield lines


@pytest.fixture(scope="module")
def once(told: list[str]) -> list[str]:
    """As ``told``, with blocks compiled for two sizes; the second makes a graph for all sizes."""
    made = model()
    expected = {size: ask(made, size) for size in (SMALL, OTHER)}
    compiled.compile_blocks(made)
    assert told == []
    assert all(off(ask(made, size), value) < 1e-5 for size, value in expected.items())
    if not hasattr(torch.ops.aten, "_fused_rms_norm"):
        pytest.skip("this torch compiles anew for each size: it is older than 2.9, and what is counted here is newer")
    assert len(told) == 2
    assert all("being compiled" in line for line in told)
    return told


@needs_compiler
def test_one_graph_does_for_all_blocks_sizes_and_models_of_a_kind(once: list[str]) -> None:
    """Three blocks, two sizes: two graphs, see ``once``. A third size and another model need none."""
    another = model(seed=5)
    expected = {size: ask(another, size) for size in (SMALL, OTHER, THIRD)}
    compiled.compile_blocks(another)
    for size, value in expected.items():
        found = ask(another, size)
        assert off(found, value) < 1e-5
        assert torch.equal(ask(another, size), found)
    assert len(once) == 2


@needs_compiler
def test_packed_weights_loras_beside_them_and_offload_need_no_other_graph(once: list[str], tmp_path: Path) -> None:
    plain, fast = model(), model()
    compiled.compile_blocks(fast)
    before = ask(plain)
    for made in (plain, fast):
        pack(made)
    packed = ask(plain)
    assert not torch.equal(packed, before)
    assert off(ask(fast), packed) < 1e-5

    torch.manual_seed(2)
    tensors = {}
    for name in ("self_attn.q", "cross_attn.v_img", "ffn.2"):
        layer = plain.blocks[1].get_submodule(name)
        tensors[f"diffusion_model.blocks.1.{name}.lora_down.weight"] = torch.randn(4, layer.in_features) * 0.1
        tensors[f"diffusion_model.blocks.1.{name}.lora_up.weight"] = torch.randn(layer.out_features, 4) * 0.1
    tensors["diffusion_model.blocks.1.norm3.diff"] = torch.randn(96) * 0.1
    tensors["diffusion_model.blocks.2.diff_m"] = torch.randn(1, 6, 96) * 0.1
    save_file(tensors, tmp_path / "lora.safetensors")
    for made in (plain, fast):
        read = lora.read(tmp_path / "lora.safetensors", parameter_shapes(made))
        lora.apply(made, [lora.Use(lora=read, strength=0.8)])
    changed = ask(plain)
    assert off(changed, packed) > 1e-3
    assert off(ask(fast), changed) < 1e-5

    with attach(fast, "cpu", 2):
        for _ in range(2):
            assert off(ask(fast), changed) < 1e-5
    assert off(ask(fast), changed) < 1e-5
    assert len(once) == 2


@needs_compiler
@pytest.mark.parametrize("error", [Cancelled("stopped"), torch.OutOfMemoryError("out of memory"), KeyboardInterrupt()])
def test_what_fails_or_is_stopped_inside_comes_out_and_the_next_run_is_right(
    once: list[str], error: BaseException
) -> None:
    made = model()
    expected = ask(made)
    compiled.compile_blocks(made)

    def fail(*tensors: Tensor) -> Tensor:
        raise error

    made.attend = fail
    with pytest.raises(type(error)):
        ask(made)
    assert compiled._running.block is None
    made.attend = sdpa.attend
    assert off(ask(made), expected) < 1e-5
    assert len(once) == 2


class Doubling(Whole):
    """As over several GPUs: attention of the tokens among themselves is another function at each forward."""

    def attention(self, attend: Attend, length: int) -> Attend:
        return lambda q, k, v: attend(q, k[:, :length], 2 * v[:, :length])


@needs_compiler
def test_a_sequence_over_several_gpus_needs_no_other_graph(once: list[str]) -> None:
    made = model()
    alone, expected = ask(made), ask(made, sequence=Doubling())
    compiled.compile_blocks(made)
    for _ in range(2):
        assert off(ask(made, sequence=Doubling()), expected) < 1e-5
    assert off(alone, expected) > 1e-3
    assert off(ask(made), alone) < 1e-5
    assert len(once) == 2


@pytest.mark.parametrize("asked", [True, False])
def test_the_pipeline_and_a_rank_compile_what_they_load_if_asked(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    had: list[object] = []
    monkeypatch.setattr(denoiser, "compile_blocks", had.append)
    monkeypatch.setattr(compiled, "compile_blocks", had.append)
    nano = Path(__file__).parents[2] / "weights" / "nano"
    pipeline = generate.Pipeline.from_pretrained(nano, device="cpu", compiled=asked)
    assert had == [pipeline.transformer] * asked
    Rank(
        RankInfo(rank=0, world=1, device="cpu", backend="gloo", timeout=60.0),
        weights={"path": str(nano), "dtype": "float32", "compiled": asked},
    )
    assert len(had) == 2 * asked


@needs_compiler
def test_gradients_go_the_plain_way(once: list[str]) -> None:
    made = model().requires_grad_(True)
    compiled.compile_blocks(made)
    given = torch.randn(1, 36, *SMALL), torch.tensor([500.0]), torch.randn(1, 8, 32), torch.randn(1, 10, 16)
    made(*given).square().mean().backward()
    assert made.blocks[2].self_attn.q.weight.grad.abs().sum() > 0
    assert len(once) == 2


def test_without_a_compiler_one_line_is_said_and_the_run_goes_on() -> None:
    """In a process of its own: behind a compile that failed, torch lets some tensors live longer than before it."""
    code = "from tests.wan_local.test_compiled import run_without as run; run('no backend'); run('no compiler')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def run_without(how: str) -> None:
    compiled._unable.clear()
    made = model(dim=64 if how == "no compiler" else 32)
    expected = ask(made)
    compiled.compile_blocks(made)
    from torch._inductor import compile_fx, config, cpp_builder, exc

    gone = mock.patch.object(cpp_builder, "get_cpp_compiler", _raise(exc.InvalidCxxCompiler))
    changes = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    if how == "no backend":
        gone, changes = mock.patch.object(compile_fx, "compile_fx", _raise(RuntimeError)), {}
    lines: list[str] = []
    with notices.listening(lines.append), config.patch(changes), gone:
        found = [ask(made) for _ in range(2)]
    assert all(torch.equal(one, expected) for one in found)
    assert len(lines) == 2
    assert "can't be compiled here" in lines[1]
    assert "the run goes on without" in lines[1]
    assert "\n" not in lines[1]


@needs_float8_products
def test_queries_keys_and_values_round_their_tokens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without compiling, though each layer is a call by itself."""
    monkeypatch.setattr(layers, "has_float8_units", lambda device: True)
    made = model()
    pack(made)
    for layer in made.blocks.modules():
        layer.float8_matmul = True
    rounded: list[Tensor] = []
    monkeypatch.setattr(matmul, "rounded", lambda rows, *_, own=matmul.rounded: rounded.append(rows) or own(rows))
    x = torch.randn(1, 32, 96).bfloat16()
    monkeypatch.setattr(compiled._running, "block", made.blocks[0])
    with torch.inference_mode():
        for name in (*compiled.SAME_INPUT, "self_attn.o"):
            torch.ops.wan_flf2v.layer(x, name, 96)
        assert len(rounded) == 2
        made.blocks[0].self_attn.q(x)
    assert len(rounded) == 3, "what was rounded is not kept"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_turn_in_real_numbers_is_that_in_complex_ones(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    x, table = torch.randn(2, 24, 3, 32).to(dtype), rope_table((2, 3, 4), 32, torch.device("cpu"))
    assert torch.equal(apply_rope(x, torch.view_as_real(table)), apply_rope(x, table))


def _raise(kind: type[Exception]) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise kind("no compiler is there") if kind is RuntimeError else kind()

    return fail


@needs_compiler
def test_what_fused_kernels_move_is_counted(tmp_path: Path) -> None:
    """74 bytes a channel of a token, of the released model 67: 26.1 GB a block at 1280x720, where eager moves 54.6."""
    command = [sys.executable, "-m", "tests.wan_local.compiled_bytes", str(TOKENS)]
    aside = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),  # for what inductor leaves of what is not built
        "TORCHINDUCTOR_VEC_ISA_OK": "1",  # it would build a program to see what this CPU can do
    }
    done = subprocess.run(command, cwd=ROOT, env=aside, capture_output=True, text=True, timeout=500, check=True)
    each = int(done.stdout) / TOKENS / compiled_bytes.MODEL.dim
    print(f"{each:.1f} bytes a channel of a token")
    assert each <= 76
