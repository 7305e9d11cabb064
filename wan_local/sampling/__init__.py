"""Flow-matching sampling: schedule, samplers, guidance and the loop. Read ``loop.py`` first."""

from .cond import ComesItself, Cond, GuidesItself, Model, Sides, Transformer, cond_velocity, model_sides, model_velocity
from .guidance import Velocity, forwards_of, guided_velocity
from .long_clips import lengthened
from .loop import denoise
from .noise import initial_noise
from .samplers import SAMPLERS, make_sampler, sampler_on
from .samplers.base import Sampler

__all__ = [
    "SAMPLERS",
    "ComesItself",
    "Cond",
    "GuidesItself",
    "Model",
    "Sampler",
    "Sides",
    "Transformer",
    "Velocity",
    "cond_velocity",
    "denoise",
    "forwards_of",
    "guided_velocity",
    "initial_noise",
    "lengthened",
    "make_sampler",
    "model_sides",
    "model_velocity",
    "sampler_on",
]
