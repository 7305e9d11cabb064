"""Two experts found where people have them, and told apart by what can tell them: their places and names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny
from wan_local.denoiser import load_denoisers
from wan_local.errors import InputError, UnreadableWeights, WrongModel
from wan_local.notices import listening
from wan_local.weights import inspect, load_transformer
from wan_local.weights.experts import Pair, find_pair, level_of, open_pair
from wan_local.weights.formats import safetensors_file
from wan_local.weights.inspect import OF_PAIR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As diffusers saves its pipeline."""
    return tiny.write_expert_pipeline(tmp_path_factory.mktemp("diffusers"), boundary=0.875)


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same in ComfyUI's single files, under the names of Comfy-Org's."""
    place = tmp_path_factory.mktemp("diffusion_models")
    both = place / "wan2.2_i2v_high_noise_14B_fp16.safetensors", place / "wan2.2_i2v_low_noise_14B_fp16.safetensors"
    for path, part in zip(both, ("transformer", "transformer_2"), strict=True):
        tiny.write_single(path, load_transformer(folder / part).state_dict(), torch.float16)
    return both


def modulation(denoiser) -> torch.Tensor:
    return denoiser.transformer.blocks[0].modulation


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", "high"),
        ("Wan2_2-I2V-A14B-LOW_fp8_e4m3fn_scaled_KJ.safetensors", "low"),
        ("HighNoise/Wan2.2-I2V-A14B-HighNoise-Q4_K_M.gguf", "high"),
        ("low_noise_model/diffusion_pytorch_model.safetensors", "low"),
        ("Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16.safetensors", "high"),
        ("high_and_low.safetensors", None),
        ("highlights/slow_lowvram.safetensors", None),
        ("wan2.1_flf2v_720p_14B_fp16.safetensors", None),
    ],
)
def test_names_say_which_expert(name: str, level: str | None) -> None:
    assert level_of(name) == level


def test_a_folder_of_diffusers_has_its_own_boundary(folder: Path) -> None:
    pair = find_pair(folder)
    assert pair == Pair(high=folder / "transformer", low=folder / "transformer_2", boundary=0.875)
    assert find_pair(folder, boundary=0.5).timestep == 500.0
    high, low = load_denoisers(folder, pair)
    assert (high.level, high.lowest, low.level, low.below) == ("high", 875.0, "low", 875.0)
    assert not torch.equal(modulation(high), modulation(low))
    assert torch.equal(modulation(low), load_transformer(folder / "transformer_2").blocks[0].modulation)


def test_each_header_is_read_once(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read, own = [], safetensors_file.read_header
    monkeypatch.setattr(safetensors_file, "read_header", lambda path: read.append(path) or own(path))
    load_denoisers(files[0], Pair(high=files[0], low=files[1]))
    assert read == [*files]


def test_a_folders_boundary_may_be_0(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "all_high")
    index = tmp_path / "all_high" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "boundary_ratio": 0}))
    assert find_pair(tmp_path / "all_high").boundary == 0.0


def test_the_name_of_a_folder_that_holds_both_tells_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "high_quality"
    place.mkdir()
    both = [
        Path(shutil.copy(file, place / name))
        for file, name in zip(files, ("a.safetensors", "b.safetensors"), strict=True)
    ]
    told: list[str] = []
    with listening(told.append):
        assert find_pair(*both) == Pair(high=both[0], low=both[1])
    assert told == []


def test_a_boundary_without_a_second_expert_makes_no_pair(folder: Path, tmp_path: Path) -> None:
    """diffusers' converter writes one into folders of Wan2.1 too."""
    shutil.copytree(folder, tmp_path / "one", ignore=shutil.ignore_patterns("transformer_2"))
    assert find_pair(tmp_path / "one") is None
    with pytest.raises(InputError, match=r"boundary=0\.9 needs two experts"):
        find_pair(tmp_path / "one", boundary=0.9)


def test_the_official_folder(folder: Path, tmp_path: Path) -> None:
    for name, part in (("high_noise_model", "transformer"), ("low_noise_model", "transformer_2")):
        tiny.write_official(tmp_path / name, load_transformer(folder / part).state_dict())
    pair = find_pair(tmp_path)
    assert pair == Pair(high=tmp_path / "high_noise_model", low=tmp_path / "low_noise_model")
    high, low = load_denoisers(tmp_path, pair)
    assert torch.equal(modulation(high), load_transformer(folder / "transformer").blocks[0].modulation)
    assert torch.equal(modulation(low), load_transformer(folder / "transformer_2").blocks[0].modulation)


def test_two_files_and_one_that_finds_the_other(files: tuple[Path, Path]) -> None:
    expected, told = Pair(high=files[0], low=files[1]), []
    with listening(told.append):
        assert find_pair(files[0], files[1]) == expected
        assert told == []
        assert find_pair(files[0]) == find_pair(files[1]) == expected
    assert told[0] == f"{files[1].name} lies beside {files[0].name} and is taken as the other of Wan2.2's two experts"


def test_a_folder_of_the_two_files_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    place = shutil.copytree(files[0].parent, tmp_path / "pair")
    (place / "README.md").write_text("the bundled pair is such a folder")
    assert find_pair(place) == Pair(high=place / files[0].name, low=place / files[1].name)
    assert [part.notes[0] for part in inspect(place).parts] == [*OF_PAIR.values()]
    shutil.copy(files[0], place / "another.safetensors")
    assert find_pair(place) is None
    with pytest.raises(UnreadableWeights, match=r"pair holds several models: another\.safetensors, .*name the file"):
        inspect(place)


def test_an_expert_whose_other_is_not_there_is_one_model(files: tuple[Path, Path], tmp_path: Path) -> None:
    alone = shutil.copy(files[0], tmp_path)
    assert find_pair(alone) is None


def test_a_swapped_pair_is_used_as_asked_and_said(files: tuple[Path, Path]) -> None:
    told: list[str] = []
    with listening(told.append):
        assert find_pair(files[1], files[0]) == Pair(high=files[1], low=files[0])
    assert len(told) == 1
    assert "their names say otherwise" in told[0]


def test_the_same_expert_twice_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is given for both experts"):
        find_pair(files[0], files[0])
    other = tmp_path / "another_HIGH.safetensors"
    shutil.copy(files[0], other)
    with pytest.raises(InputError, match="are both high-noise experts by their names"):
        find_pair(files[0], other)
    renamed = Path(shutil.copy(files[0], tmp_path / "renamed_low_noise.safetensors"))
    with pytest.raises(WrongModel, match="hold the same weights"):
        open_pair(find_pair(files[0], renamed))


@pytest.mark.parametrize("boundary", [-0.1, 1.5, float("nan"), True, "0.9"])
def test_a_boundary_outside_0_to_1_is_refused(files: tuple[Path, Path], boundary: object) -> None:
    with pytest.raises(InputError, match="boundary=.* can't be used; give a number from 0 to 1"):
        find_pair(*files, boundary)


@pytest.mark.parametrize(("kind", "message"), [("FLF2V", "has an image branch"), ("T2V", "text-to-video|T2V")])
def test_what_is_no_expert_is_named(files: tuple[Path, Path], tmp_path: Path, kind: str, message: str) -> None:
    tiny.transformer(kind=kind).save_pretrained(tmp_path / "other")
    with pytest.raises(WrongModel, match=message):
        open_pair(find_pair(files[0], tmp_path / "other"))


def test_experts_of_other_sizes_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = tiny.transformer(kind="EXPERT", seed=8)
    model.blocks = model.blocks[:1]
    model.register_to_config(num_layers=1)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(WrongModel, match="32 and 32 wide, 2 and 1 blocks"):
        open_pair(find_pair(files[0], tmp_path / "other"))


def test_a_missing_expert_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match=r"low\.safetensors is not there"):
        open_pair(find_pair(files[0], tmp_path / "low.safetensors"))


def test_experts_of_two_packings_are_a_pair(files: tuple[Path, Path], tmp_path: Path) -> None:
    low = tmp_path / "low.safetensors"
    tensors = {name: value.to(torch.float8_e4m3fn) if name.endswith("ffn.0.weight") else value
               for name, value in tiny.stored(files[1]).items()}  # fmt: skip
    tiny.save_file(tensors, low, {"config": '{"attention_head_dim": 16}'})
    high, other = load_denoisers(files[0], find_pair(files[0], low))
    assert other.transformer.compute_dtype == torch.bfloat16
    assert high.transformer.compute_dtype is None
