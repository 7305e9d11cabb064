"""Clips between two pictures from GMI Cloud and WaveSpeedAI. Read ``run.py`` first.

Needs requests, numpy, Pillow and PyAV; neither torch nor ComfyUI.
"""

from .clock import Clock
from .errors import Interrupted, RemoteError
from .job import Job, Status
from .keys import Keys, Secret
from .many import all_of, run_all
from .request import GMIRequest, Request, WaveSpeedRequest
from .run import Folders, Result, fetch, run
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
