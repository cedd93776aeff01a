# install · demo · test (minutes) · test-all (also the published sizes and packaging) · lint · format
# figures    regenerates docs/benchmarks.md, docs/cli.md and the README's headline figures from committed results (seconds)
# benchmarks measures anew (about two hours) · peers: INT8 of other tools (about an hour, gigabytes of packages; align-tiny,
#            or the checkpoints in CHECKPOINTS) · fuzz: hostile input for every reader, ten minutes each · soak
# gpu-check  for a host with an NVIDIA GPU · gpu-pack, gpu-dry-run: for one that one has for fifteen minutes
# PYTHON chooses the interpreter of the virtual environment (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
MEASURE := PYTHONPATH=tests $(BIN)/python -m benchmarks.measure_
GPU_BIN := .venv-gpu/bin

.PHONY: install demo test test-all lint format benchmarks peers figures fuzz soak gpu-check gpu-pack gpu-dry-run clean

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
	@echo; echo "── verifying the bundle: its golden inputs against the PyTorch reference's embeddings, without PyTorch"
	@$(BIN)/align-verify build/align-tiny --quiet
	@echo; echo "── which label fits each image of reference/align-tiny/demo? (the model never saw them in training)"
	@cd reference/align-tiny/demo && $(abspath $(BIN))/align-classify $(CURDIR)/build/align-tiny *.png *.jpg --top 2 \
		--labels "green heart" "red heart" "white circle" "white ring" "white crescent" "white star" "white triangle" \
		"handwritten three" "handwritten seven" "handwritten eight" "handwritten nine"

# Two processes, each with one thread of torch and ONNX Runtime's exporters: on two cores that is the shortest. A test file
# stays in one process, so that its fixtures are built once; files are handed out in the order of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m "not slow"

test-all: install
	$(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/check_words.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each reader of foreign files under libFuzzer, FUZZ_SECONDS each; what fails is kept in build/fuzz.
FUZZ_SECONDS ?= 600
fuzz: demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fuzz]'
	PYTHONPATH=tests $(BIN)/python -m attacks.fuzzing build/align-tiny --seconds $(FUZZ_SECONDS)

# One model in 64 threads for ten minutes.
soak: demo
	$(MEASURE)soak build/align-tiny

# Support modules of the tests build the models that are measured. A bundle of an older export is not measured again.
benchmarks: install
	rm -rf build/bench
	$(MEASURE)full_size
	$(MEASURE)fp16
	$(MEASURE)int8
	$(MEASURE)calibration
	$(MEASURE)ablation
	$(MEASURE)text
	$(MEASURE)vision
	$(MEASURE)bench
	$(MEASURE)openvino
	$(MEASURE)clients
	$(MEASURE)resident
	$(MEASURE)profile
	$(MEASURE)engines
	$(BIN)/align-bench run build/bench/bundle --samples 50 -o benchmarks/results/align_bench.json
	$(BIN)/align-bench scaling build/bench/bundle -o benchmarks/results/scaling.json
	$(BIN)/align-export reference/align-tiny -o build/align-tiny
	$(BIN)/align-bench scaling build/align-tiny --texts 1000000 -o benchmarks/results/memory.json
	$(MEASURE)http build/align-tiny
	$(MEASURE)ray build/align-tiny
	$(MAKE) figures

# Each tool in its own virtual environment under build/peers: their requirements conflict with each other and with ours.
peers: install
	$(MEASURE)int8_peers $(CHECKPOINTS)
	$(MAKE) figures

figures: install
	$(BIN)/python -m benchmarks.figures
	$(BIN)/python docs/make_cli.py

# For a host of one's own, with TensorRT; without the limit of fifteen minutes. onnxruntime comes with [dev] and is taken
# away again: beside onnxruntime-gpu it would take the place of its files.
gpu-check:
	$(PYTHON) -m venv .venv-gpu
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,gpu,tensorrt]'
	$(GPU_BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'onnxruntime-gpu>=1.31'
	PYTHONPATH=tests $(GPU_BIN)/python -m benchmarks.gpu.check --devices cuda tensorrt --minutes 120

# For a machine that one has for fifteen minutes, without a network: into .gpu/, see benchmarks/gpu/pack.sh.
gpu-pack: install
	PYTHON=$(BIN)/python benchmarks/gpu/pack.sh

# The same steps on a CPU, from the packed source as on such a machine.
gpu-dry-run: install
	benchmarks/gpu/pack.sh --source
	PYTHON=$(abspath $(BIN))/python bash .gpu/1/run.sh --dry-run

clean:
	rm -rf build dist $(VENV) .venv-gpu .gpu
