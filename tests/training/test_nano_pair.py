"""The bundled pair of experts, beside the nano model's VAE and text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.draw import random_clips
from training.held_out import evaluate, keyframes
from training.report import FRAMES, SEED, SIZE, pair, prompt_distance
from wan_local.weights import load_transformer

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
PAIR = WEIGHTS / "nano_pair"
LIMIT = 12_000_000  # bytes of both files
FIRST, LAST, KEYFRAME = 26.0, 22.0, 20.0  # dB
CLIPS = 2
SHAPE = {"frames": FRAMES, "size": SIZE}


@pytest.fixture(scope="module")
def made():
    return pair(WEIGHTS)


def test_both_are_small():
    sizes = {file.name: file.stat().st_size for file in PAIR.iterdir()}
    print(sizes)
    assert set(sizes) == {"high_noise.safetensors", "low_noise.safetensors"}
    assert sum(sizes.values()) <= LIMIT


def test_they_are_of_the_kind_of_wan22_and_fit_the_nano_models_parts():
    nano = load_transformer(WEIGHTS / "nano").config
    for file in PAIR.iterdir():
        config = load_transformer(file).config
        assert config.is_expert
        assert (config.head_dim, config.text_len, config.text_dim) == (nano.head_dim, nano.text_len, nano.text_dim)


def test_held_out_clips_keep_their_ends(made):
    pipeline, settings = made
    for index, clip in enumerate(random_clips(SEED, CLIPS)):
        score = evaluate(pipeline, clip, **SHAPE, seed=index, **settings).score
        print(f"first {score.first:.1f} dB, last {score.last:.1f} dB: {clip.caption}")
        assert score.first >= FIRST
        assert score.last >= LAST


def test_a_frame_in_the_middle_is_followed(made):
    pipeline, settings = made
    middle, ends = keyframes(pipeline, random_clips(SEED, 1)[0], **SHAPE, seed=0, **settings)
    print(f"middle frame {middle:.1f} dB, ends {ends:.1f} dB")
    assert middle >= KEYFRAME


def test_the_prompt_decides_the_path(made):
    pipeline, settings = made
    distance = prompt_distance(pipeline, settings)
    print(f"paths of two prompts: {distance} of {SIZE} pixels apart")
    assert distance > SIZE / 4
