"""What holds on a CPU also holds on a GPU: parity, any batch, any number of threads, no leaks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime import golden
from align_runtime.backends.tensorrt import libraries
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from align_runtime.progress import Progress
from align_runtime.selftest import check_graph

pytestmark = pytest.mark.gpu
BATCHING = 2e-2  # kernels depend on the batch size; the limit of the gate for FP16


@pytest.fixture(scope="module")
def answers(tiny_fp16_bundle: Path) -> Golden:
    return golden.read(Bundle.open(tiny_fp16_bundle))


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_every_graph_agrees_with_the_reference(
    request: pytest.FixtureRequest, tiny_fp16_bundle: Path, answers: Golden, device: str
) -> None:
    folder = tiny_fp16_bundle if device == "cuda" else request.getfixturevalue("engines")
    bundle = Bundle.open(folder)
    for graph in bundle.graphs_on(device):
        assert check_graph(bundle, graph, answers, device, None).failures == ()


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_batches_and_threads_do_not_matter(
    request: pytest.FixtureRequest, tiny_fp16_bundle: Path, answers: Golden, device: str
) -> None:
    folder = tiny_fp16_bundle if device == "cuda" else request.getfixturevalue("engines")
    wrong: list[int] = []
    with align_runtime.load(folder, precision="fp16", device=device) as model:
        model.warmup()
        together = model.embed_pixels(np.tile(answers.pixels, (9, 1, 1, 1)))

        def work(row: int) -> None:
            for _ in range(20):
                alone = model.embed_pixels(answers.pixels[row : row + 1])
                if np.abs(alone - together[row]).max() > BATCHING:
                    wrong.append(row)

        threads = [threading.Thread(target=work, args=(row,)) for row in range(len(answers.pixels))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    for repeat in np.split(together, 9):
        np.testing.assert_allclose(repeat, answers.image_embeds, rtol=0, atol=BATCHING)


def test_engines_are_not_built_twice(engines: Path) -> None:
    request = EngineRequest(batches=(1, 4))
    outcomes = build_engines(engines, request, open_toolkits(request), force=False, progress=Progress(quiet=True))
    assert [outcome.reason for outcome in outcomes] == [None] * 4


def test_closing_frees_the_memory(engines: Path) -> None:
    """The first model also loads what TensorRT keeps for the process."""
    free = []
    for _ in range(4):
        with align_runtime.load(engines, precision="fp16", device="tensorrt") as model:
            model.warmup()
        _, left, _ = libraries.cudart.cudaMemGetInfo()
        free.append(left)
    assert free[-1] >= free[1] - (8 << 20)
