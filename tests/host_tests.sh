#!/bin/sh
# Tests that need a program of somebody else: a ComfyUI checkout, a browser. Says in one line what it leaves out and why.
set -eu
python=$1
if [ ! -f "$COMFYUI_PATH/main.py" ]; then
    echo "tests/comfyui and tests/browser skipped: no ComfyUI at $COMFYUI_PATH (set COMFYUI_PATH)"
    exit
fi
"$python" -m pytest -rA -q tests/comfyui
if ! command -v chromium >/dev/null 2>&1; then
    echo "tests/browser skipped: no chromium on this machine"
elif ! "$python" -c "import playwright" 2>/dev/null; then
    echo "tests/browser skipped: no Playwright in $python (tests/requirements.txt has it)"
else
    "$python" -m pytest -rA -q tests/browser
fi
