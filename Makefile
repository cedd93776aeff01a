# install · demo · test (minutes) · test-all (also the published sizes and packaging) · lint · format
# figures    regenerates docs/benchmarks.md, docs/scale.md, docs/cli.md and the README's headline figures from committed results (seconds)
# benchmarks measures anew (about two hours) · peers: INT8 of other tools (about an hour, gigabytes of packages; align-tiny,
#            or the checkpoints in CHECKPOINTS) · fuzz: hostile input for every reader, ten minutes each · soak · ray-hosts
# triton-server fetches a real Triton server for the tests, 75 MB; without it they are skipped
# gpu-check  for a host with an NVIDIA GPU · gpu-pack, gpu-dry-run: for one that one has for fifteen minutes
# cpp        the C++ runtime, in build/cpp · cpp-test · cpp-sanitize · cpp-fuzz · cpp-install PREFIX=…;
#            runtime/cpp/install_packages.sh installs what it needs
# PYTHON chooses the interpreter of the virtual environment (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
MEASURE := PYTHONPATH=tests $(BIN)/python -m benchmarks.measure_
GPU_BIN := .venv-gpu/bin
CPP_BUILD ?= build/cpp
CPP_TARGET ?= all
PREFIX    ?= /usr/local

.PHONY: install demo test test-all lint format benchmarks peers figures fuzz soak gpu-check gpu-pack gpu-dry-run ray-hosts \
	cpp cpp-test cpp-sanitize cpp-fuzz cpp-install triton-server clean

install: $(STAMP)

# torch comes first and through constraints.txt: any looser requirement pulls gigabytes of CUDA packages. Of 23,000 modules
# those that are imported are compiled when they are: compiling all takes longer than unpacking them.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e '.[dev]'
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

# Two processes, each with one thread of torch and ONNX Runtime's exporters: on two cores that is the shortest, and three are
# no faster. A test file stays in one process, so that its fixtures are built once; files are handed out in the order of
# tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m "not slow"

test-all: install
	$(PYTEST) --durations 30 --durations-min 5

# NVIDIA's own build, from the package nvidia-pytriton, with the Python backend alone: see tests/support/fetch_triton.py.
triton-server: install
	$(BIN)/python tests/support/fetch_triton.py build/triton

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
	$(PIP_INSTALL) -e '.[dev,fuzz]'
	PYTHONPATH=tests $(BIN)/python -m attacks.fuzzing build/align-tiny --seconds $(FUZZ_SECONDS)

# align-embed on three network namespaces, of which parts are killed; for root.
ray-hosts: demo
	$(MEASURE)ray_hosts build/align-tiny

# One model in 64 threads for ten minutes.
soak: demo
	$(MEASURE)soak build/align-tiny

# Support modules of the tests build the models that are measured. A bundle of an older export is not measured again.
benchmarks: install cpp
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
	$(MEASURE)cpp
	$(MEASURE)clients
	$(MEASURE)resident
	$(MEASURE)profile
	$(MEASURE)roofline
	$(MEASURE)threads
	$(MEASURE)ideas
	$(MEASURE)engines
	$(BIN)/align-bench run build/bench/bundle --samples 50 -o benchmarks/results/align_bench.json
	$(BIN)/align-bench scaling build/bench/bundle -o benchmarks/results/scaling.json
	$(BIN)/align-export reference/align-tiny -o build/align-tiny
	$(BIN)/align-bench scaling build/align-tiny --texts 1000000 -o benchmarks/results/memory.json
	$(MEASURE)embed build/align-tiny
	$(MEASURE)dtypes build/align-tiny
	$(BIN)/python tests/support/fetch_triton.py build/triton
	$(MEASURE)triton build/align-tiny
	$(MEASURE)http build/align-tiny
	$(MEASURE)ray build/align-tiny
	$(MEASURE)scale
	$(MAKE) figures

# Each tool in its own virtual environment under build/peers: their requirements conflict with each other and with ours.
peers: install
	$(MEASURE)int8_peers $(CHECKPOINTS)
	$(MEASURE)trained
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

cpp:
	cmake -S runtime/cpp -B $(CPP_BUILD) -G Ninja $(CPP_OPTIONS)
	cmake --build $(CPP_BUILD) --target $(CPP_TARGET)

cpp-test: install cpp
	ctest --test-dir $(CPP_BUILD) --output-on-failure
	ALIGN_CPP_BUILD=$(CPP_BUILD) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/cpp

# All tests of the C++ runtime under AddressSanitizer and UBSan, but those that link programs with it; those in C++ under
# ThreadSanitizer, too, with SOAK_SECONDS of one model in eight threads. Python is not built for sanitizers: its leaks are
# not counted.
SOAK_SECONDS ?= 60
CPP_TESTS := ALIGN_TEST_BUNDLE=build/align-tiny ALIGN_SOAK_SECONDS=$(SOAK_SECONDS) \
	ALIGN_ONNXRUNTIME_LIBRARY=$$(PYTHONPATH=tests $(BIN)/python -c 'import support.native as n; print(n.onnxruntime_library())')
cpp-sanitize: demo
	$(MAKE) cpp CPP_BUILD=build/asan CPP_OPTIONS=-DALIGN_SANITIZE=address,undefined
	$(CPP_TESTS) build/asan/align_tests
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
		ALIGN_CPP_BUILD=build/asan OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/cpp --ignore tests/cpp/test_library.py \
		--ignore tests/cpp/test_plugin_providers.py
	$(MAKE) cpp CPP_BUILD=build/tsan CPP_TARGET=align_tests CPP_OPTIONS=-DALIGN_SANITIZE=thread
	$(CPP_TESTS) TSAN_OPTIONS=suppressions=runtime/cpp/tests/tsan_suppressions.txt build/tsan/align_tests --gtest_filter=-Forks.*

# Each reader of the C++ runtime under libFuzzer, FUZZ_SECONDS each; what fails is kept in build/cpp-fuzz.
cpp-fuzz:
	CC=clang CXX=clang++ cmake -S runtime/cpp -B build/cpp-fuzz -G Ninja -DALIGN_BUILD_TESTS=OFF -DALIGN_BUILD_FUZZERS=ON \
		-DALIGN_SANITIZE=address,undefined
	cmake --build build/cpp-fuzz --target align_fuzz
	for target in $(notdir $(wildcard runtime/cpp/tests/corpus/*)); do \
		mkdir -p build/cpp-fuzz/found/$$target && ALIGN_FUZZ_TARGET=$$target build/cpp-fuzz/align_fuzz \
		-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -artifact_prefix=build/cpp-fuzz/ -verbosity=0 \
		-print_final_stats=1 build/cpp-fuzz/found/$$target runtime/cpp/tests/corpus/$$target || exit 1; done

cpp-install: cpp
	cmake --install $(CPP_BUILD) --prefix $(PREFIX)

clean:
	rm -rf build dist $(VENV) .venv-gpu .gpu
