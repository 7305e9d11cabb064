"""Where parts work: the device that is asked for, and the dtype that suits it."""

from __future__ import annotations

import pytest
import torch

from wan_local import notices
from wan_local.errors import InputError
from wan_local.parts import choose_device, default_dtype


def test_device_that_is_not_here() -> None:
    for name in ("cuda:99", "tpu", "meta:x"):
        with pytest.raises(InputError, match="can't be used here; use cpu"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"


def test_what_networks_calculate_in_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's GPUs before Ampere have no fused attention for bfloat16, and are said to."""
    told: list[str] = []
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with notices.listening(told.append):
        for capability, expected in (((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16), ((7, 5), torch.float16)):
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
            assert default_dtype(torch.device("cuda")) == expected
            assert len(told) == (expected == torch.float16)
    assert told[0].startswith("Tesla T4 has no fused attention for bfloat16")
    assert default_dtype(torch.device("cpu")) == torch.float32
