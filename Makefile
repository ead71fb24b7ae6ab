PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

SCENES := data/prepared/scenes64
MODEL := src/soundreel/assets/default_model

.PHONY: demo test lint api bench default-model

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
	$(BIN)/soundreel render data/rendered --count 6600 --seed 11 --size 64 --duration-s 2 --frame-rate 10
	$(BIN)/soundreel prepare data/rendered $(SCENES) --height 64 --width 64 --labels folder --test 220
	$(BIN)/soundreel train mm-ldm-scenes --data $(SCENES) --out runs/mm-ldm-scenes --all-stages \
		$(if $(wildcard runs/mm-ldm-scenes/config.json),--resume)
	$(BIN)/soundreel pack runs/mm-ldm-scenes/model $(MODEL)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[dev]" -c constraints.txt
	touch $@
