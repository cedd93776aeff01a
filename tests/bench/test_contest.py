"""Contestants in turns, and the peers that can be had here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from align_bench import peers
from align_bench.contest import OURS, check_peers, contest, take_turns
from align_bench.record import Case
from align_bench.subject import opened
from align_runtime import Bundle
from align_runtime.errors import BackendUnavailableError, ConfigurationError, InputError


def ones() -> NDArray[np.float32]:
    return np.ones((2, 3), np.float32)


def test_the_order_is_reversed_every_other_round_and_the_second_run_counts() -> None:
    runs: list[str] = []
    now = 0.0

    def contestant(name: str, first: float, second: float) -> NDArray[np.float32]:
        nonlocal now
        now += first if runs[-1:] != [name] else second
        runs.append(name)
        return ones()

    contestants = {"a": lambda: contestant("a", 9.0, 1.0), "b": lambda: contestant("b", 9.0, 2.0)}
    seconds, differences = take_turns(contestants, 8, lambda: now)
    assert "".join(runs) == "ab" + "aabbbbaa" * 4
    assert differences == {"a": 0.0, "b": 0.0}
    assert seconds["b"] == (2.0,) * 8
    assert set(seconds["a"][1:]) == {1.0}


def test_differences_are_told_and_nonsense_is_refused() -> None:
    _, differences = take_turns({"a": ones, "b": lambda: ones() * 1.5}, 7)
    assert differences == {"a": 0.0, "b": 0.5}
    for other in (lambda: ones()[:1], lambda: ones() * np.nan):
        with pytest.raises(InputError, match=r"b gives .*; \(2, 3\) was expected"):
            take_turns({"a": ones, "b": other}, 7)
    with pytest.raises(ConfigurationError, match="6 rounds are too few for a ratio; 7 or more"):
        take_turns({"a": ones}, 6)


@pytest.mark.parametrize(("tower", "size", "batch"), [("vision", "80x60", 1), ("vision", "80x60", 5), ("text", "9", 4)])
def test_openvino_computes_the_same_with_and_without_streams(
    tiny_bundle: Path, tower: str, size: str, batch: int
) -> None:
    bundle = Bundle.open(tiny_bundle)
    with opened(bundle, "fp32", "cpu", streams=2) as subject:
        found = contest(subject, Case(tower, "fp32", "cpu", batch, size, None, 2), ["openvino", "fp32"], 7, None)
    assert list(found.seconds) == [OURS, "openvino", "fp32"]
    assert found.max_abs["fp32"] == 0
    assert 0 < found.max_abs["openvino"] < 1e-5


def test_unknown_peers_and_missing_packages(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(ConfigurationError, match="there is no peer 'tflite'; known: fp32, openvino, openvino-bf16"):
        check_peers(bundle, ["openvino", "tflite"], None)
    with pytest.raises(ConfigurationError, match="nowhere does not exist; align-tiny was the checkpoint"):
        check_peers(bundle, [], Path("nowhere"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with opened(bundle, "fp32", "cpu") as subject:
        case = Case("text", "fp32", "cpu", 1, "9", None, 1)
        with pytest.raises(BackendUnavailableError, match="openvino cannot be imported .*pip install openvino"):
            contest(subject, case, ["openvino"], 7, None)


def test_peers_of_other_packages_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'torch'")

    points = [SimpleNamespace(name="mine", load=lambda: ones), SimpleNamespace(name="broken", load=missing)]
    monkeypatch.setattr(peers.importlib.metadata, "entry_points", lambda group: points if group == peers.GROUP else [])
    assert peers.find_peer("mine") is ones
    with pytest.raises(BackendUnavailableError, match="the peer broken cannot be imported .*torch"):
        peers.find_peer("broken")
