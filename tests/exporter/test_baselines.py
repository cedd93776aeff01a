"""The peers that run the checkpoint itself give what the bundle gives, and cannot do without the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from align_bench.peers import BUILT_IN, check_peers, compare_with_peers
from align_bench.record import Case
from align_bench.subject import opened
from align_exporter import baselines as peers
from align_runtime import Bundle, CheckpointError, ConfigurationError
from support.fake_hub import COMMIT, OTHER_COMMIT, FakeHub, Repository, serve
from support.hub_client import hub_settings

CASES = (Case("vision", "fp32", "cpu", 2, "80x60", 1, 1), Case("text", "fp32", "cpu", 3, "9", 1, 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.tower)
def test_torch_and_the_plain_export_compute_the_same(
    case: Case, small_bundle: Path, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"torch": peers.open_torch, "onnx-plain": peers.open_onnx_plain}
    monkeypatch.setattr("align_bench.peers.BUILT_IN", BUILT_IN | known)
    with opened(Bundle.open(small_bundle), "fp32", "cpu", 1, 1) as subject:
        found = compare_with_peers(subject, case, list(known), 7, str(small_checkpoint))
        assert all(found.max_abs[name] < 2e-5 for name in known)
        with pytest.raises(ConfigurationError, match="name it with --checkpoint .it was small"):
            compare_with_peers(subject, case, ["torch"], 7, None)


def test_a_checkpoint_on_the_hub_is_that_of_the_bundle(
    tiny_bundle: Path, small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--checkpoint owner/name``: found and downloaded before anything is measured, at the commit of the export."""
    monkeypatch.setattr("align_bench.peers.BUILT_IN", {"torch": peers.open_torch})
    bundle = Bundle.open(tiny_bundle)
    files = {path.name: path.read_bytes() for path in small_checkpoint.iterdir()}
    repository = Repository({COMMIT: {}, OTHER_COMMIT: files})
    with serve(FakeHub({"owner/small": repository})) as hub, hub_settings(tmp_path / "home", hub.url):
        with pytest.raises(CheckpointError, match="owner/nothing not found"):
            check_peers(bundle, ["torch"], "owner/nothing", 8)
        exported = replace(bundle.manifest.provenance, name="owner/small", revision=OTHER_COMMIT)
        bundle = replace(bundle, manifest=replace(bundle.manifest, provenance=exported))
        check_peers(bundle, ["torch"], "owner/small", 8)
        assert "model.safetensors" in hub.downloaded()
        assert peers.find_checkpoint("owner/small", bundle).revision == OTHER_COMMIT
        with pytest.raises(CheckpointError, match="neither an existing folder nor a hub id"):
            check_peers(bundle, ["torch"], "nowhere", 8)


def test_the_peers_are_entry_points_that_exist() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    _, _, section = text.partition('entry-points."align_bench.peers"]')
    lines = [line.partition("=") for line in section.split("\n\n")[0].splitlines() if "=" in line]
    assert [name.strip() for name, _, _ in lines] == ["torch", "torch-compile", "onnx-plain"]
    for _, _, target in lines:
        module, _, function = target.strip().strip('"').partition(":")
        assert module == "align_exporter.baselines"
        assert callable(getattr(peers, function))
