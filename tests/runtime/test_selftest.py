"""The self-test of a bundle: what it finds, and that nothing is loaded whose hash is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align_runtime import Bundle, BundleError, golden, selftest
from align_runtime.golden import Golden
from align_runtime.graph_entry import TensorSpec
from align_runtime.parity import Limits


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> Golden:
    return golden.read(bundle)


def test_an_exported_bundle_passes(bundle: Bundle, expected: Golden) -> None:
    assert list(selftest.check_inputs(bundle, expected)) == []
    for graph in bundle.manifest.graphs:
        check = selftest.check_graph(bundle, graph, expected, "cpu", None)
        assert (check.graph, check.failures) == (graph, ())
        assert check.parity.rows == len(expected.texts if graph.tower == "text" else expected.images)


def test_every_failure_is_listed(bundle: Bundle, expected: Golden) -> None:
    """Labels and limits are those of the manifest."""
    strict = Limits(max_abs=0.0, min_cosine=0.5, min_centred_cosine=0.5)
    forged = replace(bundle.manifest.graphs[0], variant="fp16", limits=strict)
    check = selftest.check_graph(bundle, forged, expected, "cpu", None)
    parity, label = check.failures
    assert parity.startswith(f"{forged.file}: max_abs ")
    assert label.startswith(f"{forged.file} is labelled fp16")


def test_a_graph_with_another_hash_is_not_loaded(
    bundle_copy: Path, expected: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the graph itself is right and the weights beside it are not."""
    monkeypatch.setattr(selftest, "open_graph", lambda *_, **__: pytest.fail("it was loaded"))
    for name in ("onnx/text_model.onnx_data", "onnx/text_model.onnx"):
        file = bundle_copy / name
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        changed = Bundle.open(bundle_copy)
        graph = changed.graph("text", "fp32", "cuda")
        assert name in graph.files
        with pytest.raises(BundleError, match="sha256"):
            selftest.check_graph(changed, graph, expected, "cpu", None)


def test_inputs_of_each_kind_of_graph(bundle: Bundle, expected: Golden) -> None:
    vision, text = bundle.graph("vision", "fp32", "cpu"), bundle.graph("text", "fp32", "cpu")
    assert selftest.graph_inputs(vision, bundle.manifest, expected).keys() == {"pixels"}
    assert selftest.graph_inputs(text, bundle.manifest, expected).keys() == {"input_ids", "attention_mask"}
    normalized = replace(vision, inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, 65, 65)),))
    inputs = selftest.graph_inputs(normalized, bundle.manifest, expected)
    assert inputs["pixel_values"].dtype == np.float32
    assert inputs["pixel_values"].shape == (len(expected.images), 3, 65, 65)
