#!/bin/sh
# Tests that need a program of somebody else: a ComfyUI checkout, a browser. Says in one line what it leaves out and why.
# Two files at a time, each with a host of its own that takes one core. A host or a page that hangs costs a test 300 s
# and a run five tests.
set -eu
python=$1
if [ ! -f "$COMFYUI_PATH/main.py" ]; then
    echo "tests/comfyui and tests/browser skipped: no ComfyUI at $COMFYUI_PATH (set COMFYUI_PATH)"
    exit
fi
browser=""
if ! command -v chromium >/dev/null 2>&1; then
    echo "tests/browser skipped: no chromium on this machine"
elif ! "$python" -c "import playwright" 2>/dev/null; then
    echo "tests/browser skipped: no Playwright in $python (tests/requirements.txt has it)"
else
    browser=tests/browser
fi
OMP_NUM_THREADS=1 "$python" -m pytest -rA -q -n 2 --dist loadfile --no-loadscope-reorder --timeout 300 --maxfail 5 \
    $browser tests/comfyui
