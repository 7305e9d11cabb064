# make demo   a video from two bundled pictures, with the bundled nano model
# make test   everything that runs without a GPU; ComfyUI and browser tests where they are installed
# make soak   300 random schedules of faults at the clouds' stand-in
# make bench  speed and memory beside diffusers
# make lint   ruff and mypy

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI

.PHONY: help demo test soak bench lint clean

help:
	@sed -n 's/^# //p' Makefile

# Torch first and by itself, so that no other package chooses it.
$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/test: $(VENV)/run pyproject.toml tests/requirements.txt
	$(BIN)/pip install --quiet -r tests/requirements.txt
	@touch $@

demo: $(VENV)/run
	@mkdir -p output
	$(BIN)/python -m wan_local generate --model weights/nano \
	  --first examples/nano_first.png --last examples/nano_last.png \
	  --prompt "$$(cat examples/nano_prompt.txt)" --negative "" \
	  --width 64 --height 64 --length 17 --steps 30 --guidance 2 --seed 1 \
	  --output output/demo.mp4 --sheet output/demo.png

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rA -q -n 2 --dist loadfile --ignore=tests/comfyui --ignore=tests/browser tests
	@COMFYUI_PATH="$(COMFYUI_PATH)" sh tests/host_tests.sh $(BIN)/python

soak: $(VENV)/test
	REMOTE_SCHEDULES=$${REMOTE_SCHEDULES:-300} $(BIN)/python -m pytest -v --tb=short tests/wan_remote/test_schedules.py

bench: $(VENV)/test
	$(BIN)/python -m benchmarks

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) output
