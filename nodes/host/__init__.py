"""Everything this pack asks of ComfyUI. The only folder that imports it.

Written for ComfyUI 0.8.0 and later: what came after 0.8.0 is looked up at call time, never assumed. A file a heading;
nodes say ``host.load`` and the like, and need not know which file it stands in.
"""

# fmt: off
from .folders import (
    BUNDLED, GGUF, RESULTS, bundled, input_folder, model_files, model_path, pipeline_folders, private_folder,
    register_folders, results_folder,
)
from .memory import (
    compute_device, compute_dtype, decode_dtype, device_name, encoder_devices, free_everything, hold, is_dynamic,
    is_out_of_memory, load, make_room, management, minimal_vram_hooks, offload_device, result_device, room_beside,
    room_for_results, total_memory, unload, vae_devices,
)
from .operations import Operations
from .patches import parameter, patch, patched
from .preview import previewer
from .progress import log, notify, progress_bar, running_node, show_text
from .sampling import sampler
from .schema import ComfyExtension, io, schema
from .stop import Stopped, is_failure, stop_asked, stop_between_layers, stop_if_asked
from .temporary import temporary_file, temporary_image
from .values import (
    CLIP, VideoFromComponents, clip_vision_output, denormalise_latents, is_plain_mp4, normalise_latents,
    video_components, video_file, video_preview, with_values,
)
from .web import Picture, Refused, answer
