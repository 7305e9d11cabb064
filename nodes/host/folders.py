"""Where models lie, what the pack keeps for itself, and where its results go."""

from __future__ import annotations

from pathlib import Path

import folder_paths

PACK = Path(__file__).resolve().parents[2]
MODEL_FOLDER = "wan_flf2v"  # models/wan_flf2v, beside the models/diffusers that ComfyUI has
RESULTS = "wan_flf2v"  # output/wan_flf2v: what clouds made; the temp folder would be emptied at the next start
PRIVATE = "wan_flf2v"  # user/__wan_flf2v: ComfyUI serves nothing from there
TRANSFORMERS = "diffusion_models"
# Lists of the same folders with another ending.
GGUF = {TRANSFORMERS: "wan_flf2v_gguf", "text_encoders": "wan_flf2v_text_gguf"}
WEIGHTS = PACK / "weights"
BUNDLED = "nano (bundled)"
BUNDLED_EXPERTS = {
    "nano high noise (bundled)": WEIGHTS / "nano_pair" / "high_noise.safetensors",
    "nano low noise (bundled)": WEIGHTS / "nano_pair" / "low_noise.safetensors",
}
PIPELINE_MARKS = ("model_index.json", "Wan2.1_VAE.pth")  # diffusers layout, official layout


def register_folders() -> None:
    """Make ``models/wan_flf2v`` a model folder, which ``extra_model_paths.yaml`` can then extend; list GGUF files."""
    folder_paths.add_model_folder_path(MODEL_FOLDER, str(Path(folder_paths.models_dir) / MODEL_FOLDER))
    for kind, listed in GGUF.items():
        folder_paths.folder_names_and_paths.setdefault(listed, (folder_paths.get_folder_paths(kind), {".gguf"}))


def pipeline_folders() -> dict[str, Path]:
    """Name to path of every pipeline folder: the bundled one first, then those in the model folders.

    A name is a path below a model folder, at most two levels deep. Only what is listed here can be loaded, so
    a workflow can't name a path of its own.
    """
    found = {BUNDLED: WEIGHTS / "nano"} if is_pipeline(WEIGHTS / "nano") else {}
    for kind in (MODEL_FOLDER, "diffusers"):
        roots = folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else []
        for root in map(Path, roots):
            for folder in sorted([*root.glob("*"), *root.glob("*/*")]):
                if is_pipeline(folder):
                    found.setdefault(folder.relative_to(root).as_posix(), folder)
    return found


def is_pipeline(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in PIPELINE_MARKS)


def bundled(kind: str) -> dict[str, Path]:
    """Name to path of what comes with this pack and has a part of ``kind``, a folder below ``models``."""
    folders = pipeline_folders()
    found = {BUNDLED: folders[BUNDLED]} if BUNDLED in folders else {}
    if kind == TRANSFORMERS:
        found |= {name: path for name, path in BUNDLED_EXPERTS.items() if path.is_file()}
    return found


def model_files(kind: str) -> list[str]:
    """Names of the files that ComfyUI lists below ``models/<kind>``, and of GGUF files there, which it does not."""
    return [name for listed in _lists(kind) for name in folder_paths.get_filename_list(listed)]


def model_path(kind: str, name: str) -> Path | None:
    """Where the file of that name is; None if it is not listed, so that no other path gets in."""
    for listed in _lists(kind):
        if name in folder_paths.get_filename_list(listed) and (path := folder_paths.get_full_path(listed, name)):
            return Path(path)
    return None


def _lists(kind: str) -> list[str]:
    listed = dict.fromkeys((kind, GGUF.get(kind, kind)))
    return [name for name in listed if name in folder_paths.folder_names_and_paths]


def private_folder() -> Path:
    """Where keys and the journal are kept: no HTTP route of the host reaches it."""
    return Path(folder_paths.get_system_user_directory(PRIVATE))


def results_folder() -> Path:
    """Where downloaded clips are kept, inside the output folder."""
    return Path(folder_paths.get_output_directory()) / RESULTS


def input_folder() -> Path:
    """Where core's Load Latent looks."""
    return Path(folder_paths.get_input_directory())
