#!/bin/sh
# Tests that need a program of somebody else: a ComfyUI checkout, a browser. Says in one line what it leaves out and why.
# A host or a page that hangs costs a test 300 s and a run five tests.
set -eu
python=$1
bounds="--timeout 300 --maxfail 5"
if [ ! -f "$COMFYUI_PATH/main.py" ]; then
    echo "tests/comfyui and tests/browser skipped: no ComfyUI at $COMFYUI_PATH (set COMFYUI_PATH)"
    exit
fi
"$python" -m pytest -rA -q $bounds tests/comfyui
if ! command -v chromium >/dev/null 2>&1; then
    echo "tests/browser skipped: no chromium on this machine"
elif ! "$python" -c "import playwright" 2>/dev/null; then
    echo "tests/browser skipped: no Playwright in $python (tests/requirements.txt has it)"
else
    "$python" -m pytest -rA -q $bounds tests/browser
fi
