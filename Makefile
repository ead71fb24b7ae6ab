PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
BENCH := coupled_unet decode_clips super_resolution mm_ldm sampler_oracle zero_shot_oracle

.PHONY: demo test lint bench

demo: .venv/installed  ## prepare the example clips, train the tiny preset, write clips
	$(BIN)/soundreel prepare examples/clips $(DEMO)/clips --height 32 --width 32 --workers 2
	$(BIN)/soundreel train mm-diffusion-tiny --data $(DEMO)/clips --out $(DEMO)/run $(if $(wildcard $(DEMO)/run/config.json),--resume)
	$(BIN)/soundreel demo $(DEMO)/run/model --out $(DEMO)/out

test: .venv/installed  ## all fast tests, one process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow and not gpu"

lint: .venv/installed
	$(BIN)/ruff format --check && $(BIN)/ruff check && $(BIN)/pyrefly check

bench: .venv/installed  ## prints Markdown; scripts that need models or data are run by hand
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py || exit 1; done

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[dev]" -c constraints.txt
	touch $@
