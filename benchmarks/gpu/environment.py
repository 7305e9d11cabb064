"""What there is: the GPU, its driver, torch and what else is installed."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess

import torch

from .lab import Lab

ASKED = ("triton", "flash_attn", "flash_attn_3", "sageattention", "comfy-kitchen", "av", "transformers", "diffusers")
QUERY = "power.limit,clocks.max.sm,driver_version,pcie.link.gen.max,pcie.link.width.max"


def measure(lab: Lab) -> None:
    lab.tell(
        "torch", torch.__version__, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), cpus=os.cpu_count()
    )
    if lab.on_gpu:
        gpu = torch.cuda.get_device_properties(0)
        lab.tell("GPU", gpu.name, capability=f"{gpu.major}.{gpu.minor}", GB=round(gpu.total_memory / 1e9, 1))
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            lab.tell(QUERY, found.stdout.strip().splitlines()[0] if found.stdout else "not told")
    for name in ASKED:
        try:
            lab.tell(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            lab.tell(name, "not installed")
