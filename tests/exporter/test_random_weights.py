"""``--random-weights``: from a ``config.json`` alone to a bundle that every reader is told about."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import align_runtime
from align_exporter.cli.options import add_options, read_options
from align_exporter.command import main
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance, staleness
from align_exporter.parity_gate import FINITE, limits
from align_exporter.variants import VARIANTS, variant_of
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from align_reference.source import resolve, resolve_configuration
from align_runtime import Bundle
from align_runtime.commands import inspect, verify
from align_runtime.console import CommandParser
from align_runtime.errors import CheckpointError, ConfigurationError
from align_runtime.golden import read as read_golden
from support.build_once import build_once
from support.checkpoints import small_config, write_json

MARK = "RANDOM WEIGHTS (seed 7): for latency and memory only, embeddings mean nothing"


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only a configuration, which holds a key that nobody knows."""
    folder = tmp_path_factory.mktemp("only") / "align-small"
    folder.mkdir()
    write_json(folder / "config.json", small_config(text_config={"vocab_size": 700, "rope_theta": 1}))
    return folder


@pytest.fixture(scope="session")
def bundle(configuration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def build(folder: Path) -> None:
        call = [str(configuration), "-o", str(folder), "--random-weights", "7", "--ignore-unknown-keys", "--quiet"]
        assert main(call) == 0

    return build_once(tmp_path_factory, "random", build)


def test_the_manifest_says_so(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert (manifest.provenance.name, manifest.provenance.random_weights) == ("align-small", 7)
    assert list(manifest.provenance.files) == ["config.json"]
    note = "config.json: text_config: ignored the unknown key 'rope_theta': 1"
    assert manifest.provenance.notes == (note,)
    assert manifest.provenance.remarks == (MARK, note)
    assert (manifest.model.vocab_size, manifest.model.max_length) == (700, 64)
    assert manifest.preprocessing.output_size == (65, 65)


def test_different_inputs_stay_apart(bundle: Path) -> None:
    golden = read_golden(Bundle.open(bundle))
    for embeds, highest in ((golden.image_embeds, 0.95), (golden.text_embeds[1:], 0.999)):
        assert (embeds @ embeds.T - 2 * torch.eye(len(embeds)).numpy()).max() < highest


def test_inspect_verify_report_and_load_say_so(
    bundle: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert inspect.main([str(bundle)]) == 0
    assert MARK in capsys.readouterr().out
    assert inspect.main([str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["random_weights"] == 7
    assert verify.main([str(bundle)]) == 0
    assert MARK in capsys.readouterr().out
    assert verify.main([str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["random_weights"] == 7
    page = (bundle / "report.html").read_text(encoding="utf-8")
    assert MARK in page
    assert "rope_theta" in page
    assert json.loads((bundle / "report.json").read_text())["provenance"]["random_weights"] == 7
    with caplog.at_level(logging.WARNING), align_runtime.load(bundle, towers=("text",)):
        assert [record.getMessage() for record in caplog.records] == [f"{bundle}: {MARK}"]


def test_other_bundles_do_not(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Bundle.open(tiny_bundle).manifest.provenance.remarks == ()
    assert "RANDOM WEIGHTS" not in (tiny_bundle / "report.html").read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING), align_runtime.load(tiny_bundle, towers=("text",)):
        assert caplog.records == []


def why(bundle: Path, configuration: Path, **options: Any) -> str | None:
    return staleness(bundle, provenance(resolve_configuration(str(configuration)), ExportOptions(**options)))


def test_freshness_knows_the_seed_and_the_keys(bundle: Path, configuration: Path) -> None:
    assert why(bundle, configuration, random_weights=7, ignore_unknown_keys=True) is None
    assert why(bundle, configuration, random_weights=7) == "changed options: ignore_unknown_keys"
    reason = "it was built with random weights of seed 7"
    assert why(bundle, configuration, random_weights=8, ignore_unknown_keys=True) == reason


def test_a_bundle_of_a_checkpoint_is_another(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    wanted = provenance(resolve(str(tiny_checkpoint)), ExportOptions(random_weights=1))
    assert staleness(tiny_bundle, wanted) == "it was built with weights of a checkpoint"


def test_the_command_says_so_again(
    bundle: Path, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")  # the command touches its manifest
    file = configuration / "config.json"  # the file is as good as its folder
    assert main([str(file), "-o", str(copy), "--random-weights", "7", "--ignore-unknown-keys"]) == 0
    captured = capsys.readouterr()
    assert "is up to date" in captured.out
    assert MARK in captured.out
    assert f"! {MARK}" in captured.err


def test_weights_beside_the_configuration(small_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"has weights \(model\.safetensors\), which --random-weights would not"
    ):
        resolve_configuration(str(small_checkpoint))
    with pytest.raises(ConfigurationError, match="has weights"):
        resolve_configuration(str(small_checkpoint / "config.json"))
    for missing in ("nowhere", "owner/name", "", str(tmp_path), str(tmp_path / "config.json")):
        with pytest.raises(CheckpointError, match=r"is neither a config\.json nor a local folder with one"):
            resolve_configuration(missing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--random-weights", "1", "--allow-pickle"], "--allow-pickle has no effect with --random-weights"),
        (["--random-weights", "1", "--revision", "main"], "--revision has no effect with --random-weights"),
        (["--random-weights", "-1"], "expected a seed of 0 to"),
        (["--random-weights", str(1 << 64)], "expected a seed of 0 to"),
    ],
)
def test_options_that_contradict_each_other(arguments: list[str], message: str) -> None:
    parser = CommandParser("align-export")
    add_options(parser)
    with pytest.raises(ConfigurationError, match=message):
        read_options(parser.parse_args(["checkpoint", "-o", "bundle", *arguments]))


def test_only_int8_is_held_to_no_limit() -> None:
    random, real = ExportOptions(random_weights=0), ExportOptions()
    for variant in VARIANTS:
        for tower in variant.limits:
            expected = FINITE if variant.name == "int8" else limits(variant, tower, real)
            assert limits(variant, tower, random) == expected
    stricter = ExportOptions(random_weights=0, parity_min_cosine={"int8": 0.9})
    assert limits(variant_of("int8", "cpu"), "vision", stricter).min_cosine == 0.9


def test_a_fresh_model_is_told_of_the_option(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "fresh"))
    config = small_config(vision_config={"depth_coefficient": 4.0})
    write_json(folder / "config.json", config)
    torch.manual_seed(0)
    model = AlignModel(AlignConfig.from_dict(config))
    for parameter in model.vision_model.parameters():
        parameter.data.mul_(1e-3)
    save_file(model.state_dict(), folder / "model.safetensors")
    assert main([str(folder), "-o", str(tmp_path / "bundle"), "--quiet"]) == 1
    message = capsys.readouterr().err
    assert "the weights are unusable" in message
    assert "--random-weights SEED" in message
