# make demo   a video from two bundled images, with the bundled nano model; from two of your own:
#             make demo FIRST=a.png LAST=b.png PROMPT="a red circle moves to the right"
# make test   everything that runs without a GPU; ComfyUI and browser tests where they are installed
# make floor  the demo and the tests again on the oldest releases that the pack says it runs on
# make soak   what is random at length: schedules of faults, jobs in bad weather, damaged files
# make bench  speed and memory beside diffusers
# make lint   ruff, its format and mypy

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
# PyAV as hosts bring it: the video tests run on these releases too.
HOST_PYAV ?= 14.2.0 17.0.0
# Bytecode is kept, whatever the shell says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
# One more than a machine of two cores has: a third of the time of many tests is a wait for other processes.
# Files start in the order of tests/conftest.py, not those of most tests first.
WITHOUT_HOST := -n 3 --dist loadfile --no-loadscope-reorder --ignore=tests/comfyui --ignore=tests/browser tests
FLOOR := .venv-floor
FLOOR_TORCH ?= torch==2.5.0
# The oldest Python from 3.10 that is here, pyenv's among them; torch 2.5 has none above 3.12.
FLOOR_PYTHON ?= $(shell for minor in 10 11 12; do \
  for python in python3.$$minor $(HOME)/.pyenv/versions/3.$$minor.*/bin/python; do \
  "$$python" -c "" 2>/dev/null && echo "$$python" && exit; done; done)

.PHONY: help demo test floor soak bench bench-gpu lint clean

help:
	@sed -n -e '/^$$/q' -e 's/^# //p' Makefile

# Torch first and by itself, so that no other package chooses it.
$(VENV)/run: requirements.txt $(LIMITS)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and \
	  'This needs Python 3.10 or newer, not ' + sys.version.split()[0] + '; name one: PYTHON=python3.12')"
	@echo "Making $(VENV), once: torch and what else is in requirements.txt. This takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH) $(LIMITS:%=-c %)
	$(BIN)/pip install --quiet -r requirements.txt $(LIMITS:%=-c %)
	@touch $@

$(VENV)/test: $(VENV)/run pyproject.toml tests/requirements.txt
	$(BIN)/pip install --quiet -r tests/requirements.txt
	@touch $@

# As they were written: make would expand a $ in them, and the shell quotes. An exported PROMPT of a shell is none.
given = $(if $(findstring command,$(origin $1)),$(value $1))
export DEMO_FIRST := $(call given,FIRST)
export DEMO_LAST := $(call given,LAST)
export DEMO_PROMPT := $(call given,PROMPT)
unexport FIRST LAST PROMPT

demo: $(VENV)/run
	@$(BIN)/python -m demo --first="$$DEMO_FIRST" --last="$$DEMO_LAST" --prompt="$$DEMO_PROMPT"

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rA -q $(WITHOUT_HOST)
	$(MAKE) --no-print-directory -j 2 $(HOST_PYAV:%=video-%)
	@COMFYUI_PATH="$(COMFYUI_PATH)" sh tests/host_tests.sh $(BIN)/python

.PRECIOUS: $(VENV)/pyav/%
# A folder with that PyAV alone goes in front of the packages of .venv: no second torch.
$(VENV)/pyav/%: | $(VENV)/test
	$(BIN)/pip install --quiet --no-deps --only-binary :all: --upgrade --target $@.part av==$*
	@mv $@.part $@

video-%: $(VENV)/pyav/%
	@PYTHONPATH="$(CURDIR)/$<" $(BIN)/python -c "import av; assert av.__version__ == '$*', av.__version__"
	PYTHONPATH="$(CURDIR)/$<" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/wan_local/test_output.py tests/wan_local/test_video*.py

floor:
	@test -n "$(FLOOR_PYTHON)" || { echo "make floor needs Python 3.10, 3.11 or 3.12; set FLOOR_PYTHON to one"; exit 1; }
	$(MAKE) --no-print-directory demo VENV=$(FLOOR) PYTHON="$(FLOOR_PYTHON)" TORCH="$(FLOOR_TORCH)" LIMITS=tests/floor.txt
	$(FLOOR)/bin/pip install --quiet -c tests/floor.txt pytest pytest-xdist pytest-timeout hypothesis gguf protobuf accelerate diffusers "yunchang>=0.6.4,<0.7"
	OMP_NUM_THREADS=1 $(FLOOR)/bin/python -m pytest -q $(WITHOUT_HOST)

soak: $(VENV)/test
	REMOTE_SCHEDULES=$${REMOTE_SCHEDULES:-300} REMOTE_SOAK=$${REMOTE_SOAK:-400} WAN_FUZZ=$${WAN_FUZZ:-5000} \
	  $(BIN)/python -m pytest -v --tb=short --timeout 3600 tests/wan_remote/test_schedules.py \
	  tests/wan_remote/test_soak.py tests/wan_local/weights/test_fuzzed_files.py

bench: $(VENV)/test
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/test
	$(BIN)/python -m benchmarks gpu

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(FLOOR) output
