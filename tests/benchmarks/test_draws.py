"""What tools are measured on: embeddings and accuracy of graphs on the held-out set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.measure_int8_peers import add_accuracy
from benchmarks.peers.calibrated import TOWERS
from benchmarks.peers.draws import Draw, Subject


@pytest.fixture(scope="module")
def draw(tiny_checkpoint: Path, tiny_int8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Draw:
    folder = tmp_path_factory.mktemp("draw")
    (folder / "bundle").symlink_to(tiny_int8_bundle)
    return Draw(Subject.read(tiny_checkpoint, per_class=1, renderings=1), seed=22, samples=128, folder=folder)


@pytest.mark.parametrize("tower", TOWERS)
def test_float_graph_is_the_reference(draw: Draw, tower: str) -> None:
    embeds, expected = draw.embeds(tower, draw.graph(tower, "fp32")), draw.subject.reference[tower]
    assert embeds.keys() == expected.keys()
    for kind, rows in embeds.items():
        np.testing.assert_allclose(rows, expected[kind], atol=1e-5)


@pytest.mark.parametrize(
    ("tower", "device", "least"),
    [("vision", "cpu", 1), ("vision", "cuda", 0.98), ("text", "cpu", 0.95), ("text", "cuda", 0.95)],
)
def test_record_of_an_int8_graph(draw: Draw, tower: str, device: str, least: float) -> None:
    record = {"tower": tower}
    file = draw.graph(tower, "int8", device)
    add_accuracy(draw, record, file, draw.embeds(tower, file), draw.subject.reference)
    assert least <= record["share"] <= 1
    assert 0.98 < record["mean_cosine"] < 0.99999  # close to the reference, and not FP32
    wrong = {kind: rows[::-1].copy() for kind, rows in draw.subject.reference[tower].items()}
    disturbed = {"tower": tower}
    add_accuracy(draw, disturbed, file, wrong, draw.subject.reference)
    assert disturbed["mean_cosine"] < 0.5
    assert disturbed["recall"] < record["recall"] / 2
