"""Models larger than the device: blocks that come when they are needed, parts that take turns, and a plan of it.

``activations.py`` says what calculating takes, ``fitting.py`` has the VAE work within what there is: both inside
ComfyUI too. ``offload.py`` moves transformer blocks, ``stages.py`` the parts of a pipeline, ``plan.py`` says beforehand
what that takes: there the host moves its models itself.
"""

from .fitting import DeviceMemory, FittingVAE
from .offload import Offload, attach
from .plan import AUTO, NONE, Plan, Setting, Stage, Weights, plan
from .stages import Memory, check_offload, for_model
from .tiles import check_tiling

__all__ = [
    "AUTO", "NONE", "DeviceMemory", "FittingVAE", "Memory", "Offload", "Plan", "Setting", "Stage", "Weights", "attach",
    "check_offload", "check_tiling", "for_model", "plan",
]  # fmt: skip
