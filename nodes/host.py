"""Everything this pack asks of ComfyUI. The only file that imports it.

Written for ComfyUI 0.8.0 and later: what came after 0.8.0 is looked up at call time, never assumed.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.hooks
import comfy.latent_formats
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import latent_preview
import node_helpers
import torch
from comfy.weight_adapter.base import WeightAdapterBase
from comfy.weight_adapter.lora import LoRAAdapter
from comfy_api.v0_0_2 import ComfyExtension, InputImpl, Types, io, ui
from comfy_execution.utils import get_executing_context

from ..wan_local import quantised
from . import search

__all__ = ["CLIP", "ClipVisionOutput", "ComfyExtension", "VideoFromComponents", "io"]

CLIP = comfy.sd.CLIP
Stopped = management.InterruptProcessingException
"""What the host raises, and expects to be raised, when the user pressed stop."""
ClipVisionOutput = comfy.clip_vision.Output

PACK = Path(__file__).resolve().parent.parent
MODEL_FOLDER = "wan_flf2v"  # models/wan_flf2v, beside the models/diffusers that ComfyUI has
RESULTS = "wan_flf2v"  # output/wan_flf2v: what clouds made; the temp folder would be emptied at the next start
PRIVATE = "wan_flf2v"  # user/__wan_flf2v: ComfyUI serves nothing from there
# Lists of the same folders with another ending.
GGUF = {"diffusion_models": "wan_flf2v_gguf", "text_encoders": "wan_flf2v_text_gguf"}
BUNDLED = "nano (bundled)"
PIPELINE_MARKS = ("model_index.json", "Wan2.1_VAE.pth")  # diffusers layout, official layout

log = logging.getLogger("WanFLF2V")


# -- schema ----------------------------------------------------------------------------------------------


def schema(node_id: str, **fields: Any) -> io.Schema:
    """An ``io.Schema`` with its search words, without the fields that this ComfyUI does not know yet."""
    fields |= {"node_id": node_id, "search_aliases": search.words(node_id)}
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


# -- model folders ---------------------------------------------------------------------------------------


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
    found = {BUNDLED: PACK / "weights" / "nano"} if is_pipeline(PACK / "weights" / "nano") else {}
    for kind in (MODEL_FOLDER, "diffusers"):
        roots = folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else []
        for root in map(Path, roots):
            for folder in sorted([*root.glob("*"), *root.glob("*/*")]):
                if is_pipeline(folder):
                    found.setdefault(folder.relative_to(root).as_posix(), folder)
    return found


def is_pipeline(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in PIPELINE_MARKS)


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
    return [listed for listed in (kind, GGUF.get(kind)) if listed in folder_paths.folder_names_and_paths]


# -- folders of clips from clouds ------------------------------------------------------------------------


def private_folder() -> Path:
    """Where keys and the journal are kept: no HTTP route of the host reaches it."""
    return Path(folder_paths.get_system_user_directory(PRIVATE))


def results_folder() -> Path:
    """Where downloaded clips are kept, inside the output folder."""
    return Path(folder_paths.get_output_directory()) / RESULTS


def input_folder() -> Path:
    """Where core's Load Latent looks."""
    return Path(folder_paths.get_input_directory())


# -- memory ----------------------------------------------------------------------------------------------


def compute_device() -> torch.device:
    return management.get_torch_device()


def offload_device() -> torch.device:
    return management.unet_offload_device()


def encoder_devices() -> tuple[torch.device, torch.device]:
    """Where text and image encoders run, and where they wait."""
    return management.text_encoder_device(), management.text_encoder_offload_device()


def vae_devices() -> tuple[torch.device, torch.device]:
    """Where a VAE runs, and where it waits."""
    return management.vae_device(), management.vae_offload_device()


def result_device() -> torch.device:
    """Where results are handed to the next node."""
    return management.intermediate_device()


def operations() -> Any:
    """The host's layers: they fetch weights at use from wherever it keeps them, in their input's dtype."""
    return Operations


class Operations(comfy.ops.manual_cast):
    """Core's casting layers, with a ``Linear`` that has its parameters from the start.

    With dynamic VRAM core's own comes without them until it is loaded; a loader that compares names and
    shapes before it reads would find none. Core builds any class that has a loader of its own the usual way.
    """

    class Linear(comfy.ops.manual_cast.Linear):
        """Its weight may be packed, as in ``wan_local.quantised.Linear``; the host then fetches the packed bytes."""

        packing: Any = None
        float8_matmul = False

        def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
            super()._load_from_state_dict(*args, **options)

        def pack(self, packed: torch.Tensor, packing: Any, scale: torch.Tensor | None) -> None:
            self.weight = torch.nn.Parameter(packed, requires_grad=False)
            self.register_buffer("scale", scale, persistent=False)
            self.packing = packing

        def forward_comfy_cast_weights(self, x: torch.Tensor) -> torch.Tensor:
            if self.packing is None:
                return super().forward_comfy_cast_weights(x)
            packed, bias, stream = comfy.ops.cast_bias_weight(
                self, x, dtype=self.weight.dtype, bias_dtype=x.dtype, offloadable=True
            )
            scale = None if self.scale is None else self.scale.to(x.device)
            if self.float8_matmul and quantised.multiplies_in_float8(self.packing, x.device):
                result = quantised.float8_linear(x, packed, scale, bias)
            else:
                result = torch.nn.functional.linear(x, self.packing.unpack(packed, scale, x.dtype), bias)
            comfy.ops.uncast_bias_weight(self, packed, bias, stream)
            return result


def compute_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """What to calculate in on ``device`` with weights stored as ``stored``."""
    order = [torch.bfloat16, torch.float16, torch.float32]
    return management.unet_manual_cast(stored, device, order) or stored


def decode_dtype(device: torch.device) -> torch.dtype:
    """What a VAE decodes in; the user's ``--fp32-vae`` and the like count."""
    return management.vae_dtype(device, [torch.bfloat16, torch.float16, torch.float32])


def hold(module: torch.nn.Module, load_device: torch.device, offload: torch.device) -> Any:
    """Give ``module`` to the host's memory management; keep the patcher for as long as the module.

    The host replaces ``CoreModelPatcher`` at start-up and old ones have none, so it is looked up here and
    now.
    """
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(module, load_device=load_device, offload_device=offload)


def load(patcher: Any, activations: int = 0, *, whole: bool = False, beside: Iterable[Any] = ()) -> None:
    """Bring a model to its device with room for ``activations`` bytes; call it before every use.

    Args:
        patcher: from :func:`hold`.
        activations: bytes the calculation itself needs.
        whole: for modules with layers that are not :func:`operations`, which can't run half loaded.
        beside: patchers of what it calculates with besides its own weights.
    """
    management.load_models_gpu([patcher, *beside], memory_required=activations, force_full_load=whole)


def low_rank_patch(up: torch.Tensor, down: torch.Tensor, scale: float) -> Any:
    """``scale * up @ down`` as the host adds it to a weight, wherever it keeps that."""
    return LoRAAdapter(set(), (up, down, scale * down.shape[0], None, None, None))


def difference_patch(difference: torch.Tensor, scale: float = 1.0) -> Any:
    """``scale`` times a whole difference, likewise."""
    return ("diff", (difference if scale == 1.0 else scale * difference,))


def adapter_patch(delta: Any) -> Any:
    """Any other change of a weight, likewise.

    The host's own classes are not used: from 0.8.0 to 0.33.0 its DoRA divides rows of outputs by the norm of the weight
    before the change, where trainers divide by that of the changed one.
    """
    return _Adapter(set(), (delta.mapped(lambda tensor: tensor.to("meta")), *delta.tensors()))


class _Adapter(WeightAdapterBase):
    """One change in the host's form: a tuple in which it finds the tensors that it moves, behind what they are."""

    name = "WanFLF2V"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(
        self, weight: torch.Tensor, key: str, strength: float, *others: Any, **options: Any
    ) -> torch.Tensor:
        form, *tensors = self.weights
        each = iter(tensors)
        delta = form.mapped(lambda _: next(each).to(weight.device))
        return delta.applied(weight.float(), strength).to(weight.dtype)


def patched(patcher: Any, patches: dict[str, Any], strength: float, replaced: dict[str, torch.nn.Parameter]) -> Any:
    """A patcher of the same weights with ``strength`` times ``patches`` on top.

    Args:
        patcher: from :func:`hold`; stays as it is.
        patches: parameter name of a layer to a patch from above.
        strength: of all of them.
        replaced: parameters that belong to no layer. The host patches layers only, so these are put in place whole.
    """
    copy = patcher.clone()
    copy.add_patches(patches, strength)
    for name, parameter in replaced.items():
        copy.add_object_patch(name, parameter)
    return copy


def object_patch(patcher: Any, name: str) -> Any:
    """What an earlier :func:`patched` put in place of the parameter ``name``; None if nothing did."""
    return patcher.object_patches.get(name)


def stop_between_layers(network: torch.nn.Module) -> None:
    """Make each of a network's stacked layers ask first whether the user pressed stop: the whole takes long."""
    for stack in network.modules():
        if isinstance(stack, torch.nn.ModuleList | torch.nn.Sequential):
            for layer in stack:
                if any(layer.children()):  # one matrix product is short enough
                    layer.register_forward_pre_hook(_stop_hook)


def _stop_hook(layer: torch.nn.Module, inputs: Any) -> None:
    stop_if_asked()


def room_beside(patcher: Any) -> int:
    """Bytes that work with a model of :func:`hold` may take once everything else has been evicted for it."""
    device = patcher.load_device
    free = management.get_free_memory(device)
    if device.type == "cpu":
        return free
    models = [loaded for loaded in management.current_loaded_models if loaded.device == device and loaded.model]
    evicted = sum(loaded.model_loaded_memory() for loaded in models)
    return int(free + evicted - patcher.model_size() - management.extra_reserved_memory())


def is_out_of_memory(error: BaseException) -> bool:
    told = getattr(management, "is_oom", None)  # knows more kinds, later than 0.8.0
    return told(error) if told else isinstance(error, management.OOM_EXCEPTION)


def free_everything() -> None:
    """Take every model off the device: for processes of ours that are about to use it, or after it was full."""
    management.unload_all_models()
    management.soft_empty_cache()


def minimal_vram_hooks(patcher: Any) -> None:
    """Mark a patcher as a text encoder's, the way core's own CLIP does."""
    patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    patcher.is_clip = True


# -- progress --------------------------------------------------------------------------------------------


def stop_if_asked() -> None:
    """Raise the host's own interruption if the user pressed stop."""
    management.throw_exception_if_processing_interrupted()


def stop_asked() -> bool:
    """Whether the user pressed stop. Only looks: whoever ends the run for it raises :data:`Stopped`."""
    return management.processing_interrupted()


def running_node() -> str | None:
    """The id of the node that runs here; threads of one's own do not know it."""
    context = get_executing_context()
    return None if context is None else context.node_id


def progress_bar(total: int, node: str | None = None) -> Callable[[int, Any], None]:
    """``show(done, preview)`` for a node, by default the running one; ``preview`` is :func:`previewer`'s, or None."""
    bar = comfy.utils.ProgressBar(total, node_id=node)
    return lambda done, preview: bar.update_absolute(done, total, preview)


def show_text(text: str, node: str | None = None) -> None:
    """A line on a node, by default the running one; nothing where none runs or the host can't show one."""
    module = sys.modules.get("server")  # never imported from here: outside a running server there is none
    node, server = node or running_node(), getattr(getattr(module, "PromptServer", None), "instance", None)
    context = get_executing_context()
    told = _notices.get((context.prompt_id, node), []) if context is not None and node is not None else []
    text = "\n".join([text, *told] if text else told)
    if node is not None and server is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node)


_notices: dict[tuple[str, str], list[str]] = {}  # prompt and node to what was told while the node ran


def notify(text: str) -> None:
    """A notice on the log, and on the running node, where it stays below whatever the node shows in this run."""
    log.warning("%s", text)
    context = get_executing_context()
    if context is None:
        return
    for key in [key for key in _notices if key[0] != context.prompt_id]:
        del _notices[key]
    _notices.setdefault((context.prompt_id, context.node_id), []).append(text)
    show_text("", context.node_id)


def previewer(device: torch.device) -> Callable[[torch.Tensor], Any] | None:
    """From latents ``[B, 16, 1, h, w]`` in model space to a preview; None where the user wants none."""
    found = latent_preview.get_previewer(device, comfy.latent_formats.Wan21())
    return None if found is None else lambda latents: found.decode_latent_to_preview_image("JPEG", latents)


# -- latents ---------------------------------------------------------------------------------------------


def normalise_latents(latents: torch.Tensor) -> torch.Tensor:
    """Raw latents of core's own Wan-VAE to model space."""
    return comfy.latent_formats.Wan21().process_in(latents)


def denormalise_latents(latents: torch.Tensor) -> torch.Tensor:
    """Model space to raw latents of core's own Wan-VAE."""
    return comfy.latent_formats.Wan21().process_out(latents)


# -- conditioning ----------------------------------------------------------------------------------------


def with_values(conditioning: Any, values: dict[str, Any]) -> Any:
    """A copy of ``CONDITIONING`` with ``values`` set on every entry."""
    return node_helpers.conditioning_set_values(conditioning, values)


# -- results ---------------------------------------------------------------------------------------------


VideoFromComponents = InputImpl.VideoFromComponents


def video_file(path: Path) -> Any:
    """``VIDEO`` that is a file: saved again, it is copied and not encoded again."""
    return InputImpl.VideoFromFile(str(path))


def video_preview(path: Path) -> Any:
    """What shows a file of the output folder on its node."""
    place = path.relative_to(folder_paths.get_output_directory())
    return ui.PreviewVideo([ui.SavedResult(place.name, place.parent.as_posix(), io.FolderType.output)])


def video_components(images: torch.Tensor, fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1000)
    return Types.VideoComponents(images=images, frame_rate=rate, audio=None)


def is_plain_mp4(path: Any, format: Any, codec: Any) -> bool:
    """Whether the host asks for H.264 in an mp4 file of that path, the only thing 0.8.0 writes."""
    return (
        isinstance(path, str | Path)
        and str(path).lower().endswith(".mp4")
        and str(getattr(format, "value", format)) in ("auto", "mp4")
        and str(getattr(codec, "value", codec)) in ("auto", "h264")
    )


def clip_vision_output(**fields: Any) -> Any:
    """``CLIP_VISION_OUTPUT`` with the given fields; the others that core reads are None."""
    output = ClipVisionOutput()
    names: Iterable[str] = ("last_hidden_state", "image_embeds", "penultimate_hidden_states", "mm_projected")
    for name in names:
        output[name] = fields.pop(name, None)
    for name, value in fields.items():
        output[name] = value
    return output
