#!/bin/sh
# Tests that need a program of somebody else: a ComfyUI checkout, a browser. Says in one line what it leaves out and why.
set -eu
python=$1
if [ -f "$COMFYUI_PATH/main.py" ]; then
    "$python" -m pytest -rA -q tests/comfyui
else
    echo "tests/comfyui skipped: no ComfyUI at $COMFYUI_PATH (set COMFYUI_PATH)"
fi
if [ ! -d tests/browser ]; then
    echo "tests/browser skipped: the pack has no frontend code yet"
elif ! command -v chromium >/dev/null 2>&1; then
    echo "tests/browser skipped: no chromium on this machine"
else
    "$python" -m pytest -rA -q tests/browser
fi
