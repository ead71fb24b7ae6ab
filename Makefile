PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

MODEL := src/soundreel/assets/default_model
# A run that was begun goes on.
resumed = $(if $(wildcard runs/$(1)/config.json),--resume)

.PHONY: demo test lint api bench default-model mm-ldm-scenes

demo: .venv/installed  ## clips of the embedded model, their contact sheets, and a page of them all
	$(BIN)/soundreel demo --out $(DEMO) --overwrite

test: .venv/installed  ## all fast tests, one process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow and not gpu"

lint: .venv/installed
	$(BIN)/ruff format --check && $(BIN)/ruff check && $(BIN)/pyrefly check

api: .venv/installed  ## docs/api.md from the docstrings
	$(BIN)/python docs/write_api.py

bench: .venv/installed  ## speed and memory of everything, into benchmarks/RESULTS.md
	$(BIN)/python benchmarks/bench.py

default-model: .venv/installed  ## the embedded model anew, from nothing; hours on two cores
	$(BIN)/soundreel render data/rendered128 --count 4400 --seed 11 --size 128 --duration-s 2.5 --frame-rate 16
	$(BIN)/soundreel prepare data/rendered128 data/prepared/joint-flow --height 64 --width 64 --frame-rate 16 \
		--labels folder --test 220 --silence-db -200
	$(BIN)/soundreel train joint-flow-scenes --data data/prepared/joint-flow --out runs/joint-flow-scenes \
		--all-stages $(call resumed,joint-flow-scenes)
	$(BIN)/soundreel pack runs/joint-flow-scenes/model $(MODEL)

mm-ldm-scenes: .venv/installed  ## an MM-LDM of the same scenes, from nothing; hours on two cores
	$(BIN)/soundreel render data/rendered --count 6600 --seed 11 --size 64 --duration-s 2 --frame-rate 10
	$(BIN)/soundreel prepare data/rendered data/prepared/scenes64 --height 64 --width 64 --labels folder --test 220
	$(BIN)/soundreel train mm-ldm-scenes --data data/prepared/scenes64 --out runs/mm-ldm-scenes --all-stages \
		$(call resumed,mm-ldm-scenes)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[dev]" -c constraints.txt
	touch $@
