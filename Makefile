# Four commands: install, demo, test, lint. `figures` measures (two hours) and renews the README's tables, `peers` those of
# other tools' INT8 (an hour, gigabytes of their packages; of align-tiny, or of the folders in CHECKPOINTS); `gpu-check` is
# for a host with an NVIDIA GPU. PYTHON chooses the interpreter of the virtual environment (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
GPU_BIN := .venv-gpu/bin

.PHONY: install demo test lint format figures peers gpu-check clean

install: $(STAMP)

# torch comes first and through constraints.txt: any looser requirement pulls gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	@echo "── exporting reference/align-tiny, a small trained ALIGN, to build/align-tiny"
	@$(BIN)/align-export reference/align-tiny -o build/align-tiny
	@echo; echo "── verifying the bundle: its golden inputs against the PyTorch reference's answers, without PyTorch"
	@$(BIN)/align-verify build/align-tiny --quiet
	@echo; echo "── which label fits each picture of reference/align-tiny/demo? (the model never saw them in training)"
	@cd reference/align-tiny/demo && $(abspath $(BIN))/align-classify $(CURDIR)/build/align-tiny *.png *.jpg --top 2 \
		--labels "green heart" "red heart" "white circle" "white ring" "white crescent" "white star" "white triangle" \
		"handwritten three" "handwritten seven" "handwritten eight" "handwritten nine"

test: install
	$(BIN)/python -m pytest -q

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

figures: install
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_full_size.py
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_fp16.py
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_int8.py
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_calibration.py
	PYTHONPATH=.:tests:reference $(BIN)/python benchmarks/measure_recovery.py
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_text.py
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_vision.py
	rm -rf build/bench/bundle # what an older export wrote
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_bench.py --folder build/bench
	PYTHONPATH=.:tests $(BIN)/python benchmarks/measure_profile.py
	$(BIN)/align-bench build/bench/bundle --samples 50 -o benchmarks/results/align_bench.json
	$(BIN)/align-bench scaling build/bench/bundle --json > benchmarks/results/scaling.json
	$(BIN)/align-export reference/align-tiny -o build/align-tiny
	$(BIN)/align-bench scaling build/align-tiny --texts 1000000 --json > benchmarks/results/memory.json
	PYTHONPATH=.:tests $(BIN)/python benchmarks/readme.py

# onnxruntime comes with [dev] and is taken away again: beside onnxruntime-gpu it would take the place of its files.
gpu-check:
	$(PYTHON) -m venv .venv-gpu
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,gpu,tensorrt]'
	$(GPU_BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'onnxruntime-gpu>=1.31'
	PYTHONPATH=.:tests $(GPU_BIN)/python benchmarks/gpu_check.py

# Each tool in a virtual environment of its own under build/peers: they exclude each other's versions and ours.
peers: install
	PYTHONPATH=.:tests:reference $(BIN)/python benchmarks/measure_int8_peers.py $(CHECKPOINTS)
	PYTHONPATH=.:tests $(BIN)/python benchmarks/readme.py

clean:
	rm -rf build dist $(VENV) .venv-gpu
