"""Flow-matching sampling: schedule, samplers, guidance and the loop. Read ``loop.py`` first."""

from .guidance import Velocity, guided_velocity
from .loop import denoise
from .noise import initial_noise
from .prompted import Side, model_velocity, prompted_velocity
from .samplers import SAMPLERS, make_sampler
from .samplers.base import Sampler

__all__ = [
    "SAMPLERS",
    "Sampler",
    "Side",
    "Velocity",
    "denoise",
    "guided_velocity",
    "initial_noise",
    "make_sampler",
    "model_velocity",
    "prompted_velocity",
]
