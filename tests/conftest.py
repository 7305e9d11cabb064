"""Makes ``import wan_local`` and ``import training`` work in tests.

The pack root goes to the end of the path: in front, our folder ``nodes/`` would hide ComfyUI's ``nodes.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
