"""Clips between two images from clouds; ``providers/`` has them. Read ``run.py`` first.

Needs requests, numpy, Pillow and PyAV; neither torch nor ComfyUI.
"""

from .clock import Clock
from .collecting import Result
from .errors import Interrupted, RemoteError
from .job import Job, Status
from .keys import Keys
from .many import all_of, run_all
from .providers.gmi import GMIRequest
from .providers.wavespeed import WaveSpeedRequest
from .request import Request
from .run import fetch, run
from .secret import Secret
from .session import Folders
from .watch import Watch

__all__ = [
    "Clock",
    "Folders",
    "GMIRequest",
    "Interrupted",
    "Job",
    "Keys",
    "RemoteError",
    "Request",
    "Result",
    "Secret",
    "Status",
    "Watch",
    "WaveSpeedRequest",
    "all_of",
    "fetch",
    "run",
    "run_all",
]
