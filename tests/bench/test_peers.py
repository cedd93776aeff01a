"""Peers: what can be found and run, and their interleaved comparison with the bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from align_bench import peers
from align_bench.peers import OURS, PeerRequest, check_peers, compare_calls, compare_with_peers, needs_checkpoint
from align_bench.record import Case
from align_bench.subject import opened
from align_runtime import Bundle
from align_runtime.errors import BackendUnavailableError, ConfigurationError, InputError

CASE = Case("text", "fp32", "cpu", 2, "9", None, 1)


def ones() -> NDArray[np.float32]:
    return np.ones((2, 3), np.float32)


def test_calls_are_interleaved_and_their_differences_measured() -> None:
    runs: list[str] = []

    def call(name: str, value: float) -> NDArray[np.float32]:
        runs.append(name)
        return ones() * value

    found = compare_calls(CASE, {"a": lambda: call("a", 1.0), "b": lambda: call("b", 1.5)}, 8)
    assert "".join(runs) == "ab" + "aabbbbaa" * 4
    assert found.case == CASE
    assert found.max_abs == {"a": 0.0, "b": 0.5}
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"a": 8, "b": 8}


@pytest.mark.parametrize("other", [lambda: ones()[:1], lambda: ones() * np.nan])
def test_embeddings_of_another_shape_or_not_finite_are_an_error(other: peers.EmbedCall) -> None:
    with pytest.raises(InputError, match="^b:"):
        compare_calls(CASE, {"a": ones, "b": other}, 7)


def test_a_speedup_needs_seven_rounds(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="7 rounds"):
        compare_calls(CASE, {"a": ones}, 6)
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(ConfigurationError, match="7 rounds"):
        check_peers(bundle, ["fp32"], None, 6)
    check_peers(bundle, [], None, 6)  # without peers there are no rounds


@pytest.mark.parametrize(("tower", "size", "batch"), [("vision", "80x60", 1), ("vision", "80x60", 5), ("text", "9", 4)])
def test_openvino_computes_the_same_with_and_without_streams(
    tiny_bundle: Path, tower: str, size: str, batch: int
) -> None:
    bundle = Bundle.open(tiny_bundle)
    case = Case(tower, "fp32", "cpu", batch, size, None, 2)
    with opened(bundle, "fp32", "cpu", streams=2) as subject:
        found = compare_with_peers(subject, case, ["openvino", "fp32"], 7, None)
    assert list(found.seconds) == [OURS, "openvino", "fp32"]
    assert found.max_abs["fp32"] == 0
    assert 0 < found.max_abs["openvino"] < 1e-5


def test_unknown_peers_missing_packages_and_missing_checkpoints_are_found_beforehand(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(ConfigurationError, match="'tflite'; known: fp32, openvino, openvino-bf16"):
        check_peers(bundle, ["openvino", "tflite"], None, 8)
    with pytest.raises(ConfigurationError, match="--checkpoint owner/name has no effect"):
        check_peers(bundle, ["fp32"], "owner/name", 8)
    sought = []
    found = needs_checkpoint(lambda checkpoint, bundle: sought.append((checkpoint, bundle)))
    monkeypatch.setattr(peers, "BUILT_IN", {"own": found(lambda request: ones)})
    with pytest.raises(ConfigurationError, match="own.*--checkpoint"):
        check_peers(bundle, ["own"], None, 8)
    check_peers(bundle, ["own"], "owner/name", 8)
    assert sought == [("owner/name", bundle)]  # a name that is not found, or cannot be downloaded, is an error here


@pytest.mark.parametrize("peer", ["openvino", "openvino-bf16"])
def test_openvino_that_is_not_installed_is_found_beforehand(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, peer: str
) -> None:
    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match="pip install openvino"):
        check_peers(bundle, [peer], None, 8)
    with pytest.raises(BackendUnavailableError, match="pip install openvino"):
        peers.find_peer(peer)(PeerRequest(bundle, CASE, {}, None))


def test_peers_of_other_packages_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'torch'")

    points = [SimpleNamespace(name="mine", load=lambda: ones), SimpleNamespace(name="broken", load=missing)]
    monkeypatch.setattr(peers.importlib.metadata, "entry_points", lambda group: points if group == peers.GROUP else [])
    assert peers.find_peer("mine") is ones
    with pytest.raises(BackendUnavailableError, match="broken .*torch"):
        peers.find_peer("broken")
