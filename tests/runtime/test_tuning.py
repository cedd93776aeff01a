"""Settings that were measured: the file, whose they are, and a model that is loaded with them."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import align_runtime
from align_runtime import Bundle, ConfigurationError
from align_runtime.load_options import LoadOptions
from align_runtime.machine_key import MachineKey
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import FILE_NAME, MAX_BYTES, TunedTower, TuningEntry, add_entry, read_tuning

IMAGE = (Path(__file__).parents[2] / "reference/align-tiny/demo/green-heart.png").read_bytes()
VISION = TowerSettings("fp32", "cpu", threads=1, streams=None, batch_size=3)
TEXT = TowerSettings("fp16", "cpu", threads=None, streams=1, batch_size=5)


def measured(settings: TowerSettings) -> TunedTower:
    return TunedTower(settings, 0.99, 0.9999, "golden", 12.5, 1.4, 1.2, 1.6, "2026-11-27T12:00:00+00:00")


def entry_for(bundle: Path, target: str = "throughput", **towers: TowerSettings) -> TuningEntry:
    sha256 = Bundle.open(bundle).manifest_sha256
    chosen = towers or {"vision": VISION, "text": TEXT}
    return TuningEntry(
        MachineKey.here(), target, "align-tiny", sha256, {name: measured(one) for name, one in chosen.items()}
    )


@pytest.fixture
def tuned_file(tiny_bundle: Path, tmp_path: Path) -> Path:
    add_entry(tmp_path / "settings.json", entry_for(tiny_bundle))
    return tmp_path / "settings.json"


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def test_a_model_runs_each_tower_with_its_own_settings(
    tiny_fp16_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "settings.json"
    add_entry(file, entry_for(tiny_fp16_bundle))
    with caplog.at_level(logging.INFO, "align_runtime"), align_runtime.load(tiny_fp16_bundle, tuned=file) as model:
        info = model.info
        assert info.settings == {"vision": VISION, "text": TEXT}
        assert info.tuned == (file, "throughput")
        assert (info.precision, info.device, info.threads, info.streams) == ("fp32 and fp16", "cpu", 1, 1)
        model.warmup()
        for batch_size, expected in ((None, [3, 3, 1]), (4, [4, 3])):  # the runtime's own would be 8
            parts = model.iter_embed_images([IMAGE] * 7, batch_size=batch_size)
            assert [len(part.indices) for part in parts] == expected
        assert model.embed_texts(["a photo"] * 11).shape == (11, info.embedding_dim)
    assert f"settings for throughput from {file}: vision: fp32 on cpu, 1 thread, batch 3; text: fp16" in caplog.text


def test_without_a_measurement_the_defaults_are_what_they_were(tiny_bundle: Path) -> None:
    with align_runtime.load(tiny_bundle, towers=("text",)) as model:
        assert model.info.settings == {"text": TowerSettings("fp32", "cpu")}
        assert model.info.tuned is None


def test_the_file_of_a_bundle_is_found_by_its_target(bundle_copy: Path) -> None:
    file = bundle_copy / FILE_NAME
    add_entry(file, entry_for(bundle_copy, "latency", text=TowerSettings(threads=1)))
    for tuned in (True, "latency"):
        with align_runtime.load(bundle_copy, towers=("text",), tuned=tuned) as model:
            assert model.info.tuned == (file, "latency")
            assert model.info.settings["text"].threads == 1
    with pytest.raises(ConfigurationError, match=r"--target throughput"):
        align_runtime.load(bundle_copy, towers=("text",), tuned="throughput")
    with pytest.raises(ConfigurationError, match=r"not the vision tower"):
        align_runtime.load(bundle_copy, tuned=True)
    add_entry(file, entry_for(bundle_copy, "throughput", text=TowerSettings(streams=1)))
    with pytest.raises(ConfigurationError, match=r"name one: tuned='latency'"):
        align_runtime.load(bundle_copy, towers=("text",), tuned=True)
    align_runtime.Bundle.open(bundle_copy)  # a file beside those of the manifest does not matter


def test_the_command_to_run_is_told_where_there_is_no_file(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"align-bench tune {tiny_bundle}$"):
        align_runtime.load(tiny_bundle, tuned=True)
    with pytest.raises(ConfigurationError, match=rf"align-bench tune {tiny_bundle} --output {tmp_path}/none.json$"):
        align_runtime.load(tiny_bundle, tuned=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda one: one["machine"].update(processor="Another"), r"for this machine \(processor 'Another', here "),
        (lambda one: one["machine"].update(cores=1000), r"for this machine \(cores 1000, here "),
        (lambda one: one["machine"].update(gpu="NVIDIA H100"), r"for this machine \(gpu 'NVIDIA H100', here None\)"),
        (lambda one: one["machine"]["versions"].update(onnxruntime="1.0"), r"\(onnxruntime '1.0', here '1"),
        (lambda one: one.update(manifest_sha256="0" * 64), r"only for align-tiny \(00000000…\); measure: align-bench"),
    ],
)
def test_settings_of_another_machine_or_bundle_are_not_taken(
    tiny_bundle: Path, tuned_file: Path, edit: Callable[[dict[str, Any]], object], match: str
) -> None:
    change(tuned_file, lambda values: edit(values["entries"][0]))
    with pytest.raises(ConfigurationError, match=match):
        align_runtime.load(tiny_bundle, tuned=tuned_file)


def vision(values: dict[str, Any]) -> dict[str, Any]:
    return values["entries"][0]["towers"]["vision"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda values: values.update(schema_version=2), "schema_version is 2, expected 1"),
        (lambda values: values.update(schema_version=True), "schema_version"),
        (lambda values: values.pop("schema_version"), "schema_version"),
        (lambda values: values.update(more=1), r"unknown keys \['more'\]"),
        (lambda values: values.update(entries={}), "entries"),
        (lambda values: values.update(entries=[1]), "entry 0 is 1"),
        (lambda values: values.update(entries=values["entries"] * 2), "entry 1 has the machine"),
        (lambda values: values.update(entries=values["entries"] * 600), "600 entries"),
        (lambda values: values["entries"][0].update(more=1), r"entry 0: missing keys \[\], unknown keys \['more'\]"),
        (lambda values: values["entries"][0].update(target="speed"), "target is 'speed'"),
        (lambda values: values["entries"][0].update(manifest_sha256="x"), "sha256"),
        (lambda values: values["entries"][0].update(towers={}), r"towers are \[\]"),
        (lambda values: values["entries"][0]["towers"].update(audio={}), "audio"),
        (lambda values: values["entries"][0]["machine"].update(more=1), r"unknown keys \['more'\]"),
        (lambda values: values["entries"][0]["machine"].update(cores=0), "cores is 0"),
        (lambda values: values["entries"][0]["machine"]["versions"].update(other="1"), "'other'"),
        (lambda values: vision(values).update(more=1), r"vision: missing keys \[\], unknown keys \['more'\]"),
        (lambda values: vision(values).pop("threads"), r"missing keys \['threads'\]"),
        (lambda values: vision(values).update(device="tpu"), "'tpu'"),
        (lambda values: vision(values).update(device="auto"), "'auto'"),
        (lambda values: vision(values).update(device="cuda"), "threads"),
        (lambda values: vision(values).update(threads=True), "threads"),
        (lambda values: vision(values).update(threads=0), "threads is 0"),
        (lambda values: vision(values).update(threads=1000), "threads is 1000 on a machine"),
        (lambda values: vision(values).update(streams=1000), "streams is 1000 on a machine"),
        (lambda values: vision(values).update(batch_size=1 << 40), "batch_size"),
        (lambda values: vision(values).update(precision="x" * 99), "precision"),
        (lambda values: vision(values).update(cosine=2), "cosine is 2"),
        (lambda values: vision(values).update(floor=float("nan")), "not valid JSON"),
        (lambda values: vision(values).update(speedup=-1), "speedup"),
    ],
)
def test_a_file_with_another_content_is_refused(
    tiny_bundle: Path, tuned_file: Path, edit: Callable[[dict[str, Any]], object], match: str
) -> None:
    change(tuned_file, edit)
    with pytest.raises(ConfigurationError, match=match) as caught:
        align_runtime.load(tiny_bundle, tuned=tuned_file)
    assert str(tuned_file) in str(caught.value)


def test_a_file_that_is_no_json_or_too_large_is_refused(tiny_bundle: Path, tuned_file: Path) -> None:
    text = tuned_file.read_text()
    for content, match in (
        (text[:-20], "not valid JSON"),
        ("[]", "expected an object"),
        (text.replace('"target"', '"target": "latency", "target"'), "target"),
        (text + " " * MAX_BYTES, "bytes; expected at most"),
    ):
        tuned_file.write_text(content)
        with pytest.raises(ConfigurationError, match=match):
            align_runtime.load(tiny_bundle, tuned=tuned_file)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        align_runtime.load(tiny_bundle, tuned=tuned_file.parent)


def test_a_link_out_of_the_bundle_is_not_followed(bundle_copy: Path, tuned_file: Path) -> None:
    (bundle_copy / FILE_NAME).symlink_to(tuned_file)
    with pytest.raises(ConfigurationError, match="link that leaves the bundle"):
        align_runtime.load(bundle_copy, tuned=True)
    with align_runtime.load(bundle_copy, towers=("vision",), tuned=bundle_copy / FILE_NAME) as model:
        assert model.info.settings["vision"] == VISION  # it was named


def test_a_path_names_one_of_two_targets_at_its_end(tiny_bundle: Path, tuned_file: Path) -> None:
    add_entry(tuned_file, entry_for(tiny_bundle, "latency", vision=TowerSettings(streams=1)))
    with pytest.raises(ConfigurationError, match=f"name one: tuned='{tuned_file}:latency'"):
        align_runtime.load(tiny_bundle, tuned=tuned_file)
    for target, settings in (("latency", TowerSettings(streams=1)), ("throughput", VISION)):
        with align_runtime.load(tiny_bundle, towers=("vision",), tuned=f"{tuned_file}:{target}") as model:
            assert model.info.settings == {"vision": settings}
            assert model.info.tuned == (tuned_file, target)


@pytest.mark.parametrize(
    "options", [{"precision": "fp32"}, {"device": "cpu"}, {"device": "auto"}, {"threads": 1}, {"streams": 1}]
)
def test_what_tuned_chooses_cannot_stand_beside_it(tiny_bundle: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"leave out {name}, or tuned"):
        align_runtime.load(tiny_bundle, tuned=True, **options)


@pytest.mark.parametrize("tuned", [1, None, b"latency", ["latency"]])
def test_tuned_of_another_kind_is_an_error(tiny_bundle: Path, tuned: Any) -> None:
    with pytest.raises(ConfigurationError, match="tuned is"):
        align_runtime.load(tiny_bundle, tuned=tuned)


def test_a_pin_does_not_stand_for_engines_that_a_file_chooses(tiny_bundle: Path, tmp_path: Path) -> None:
    file, sha256 = tmp_path / "settings.json", Bundle.open(tiny_bundle).manifest_sha256
    add_entry(file, entry_for(tiny_bundle, vision=TowerSettings(device="tensorrt"), text=TowerSettings(streams=1)))
    with pytest.raises(ConfigurationError, match="tensorrt runs engines"):
        align_runtime.load(tiny_bundle, tuned=file, manifest_sha256=sha256)
    with align_runtime.load(tiny_bundle, tuned=file, manifest_sha256=sha256, towers=("text",)) as model:
        assert model.info.streams == 1


def test_a_device_that_is_missing_is_an_error_and_no_fallback(tiny_bundle: Path, tmp_path: Path) -> None:
    add_entry(tmp_path / "a.json", entry_for(tiny_bundle, text=TowerSettings(precision="int8")))
    with pytest.raises(ConfigurationError, match="'int8' is not in the bundle"):
        align_runtime.load(tiny_bundle, towers=("text",), tuned=tmp_path / "a.json")


def test_a_copy_is_loaded_with_the_same_file(
    tiny_bundle: Path, tuned_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tuned_file.parent)
    with align_runtime.load(tiny_bundle, towers=("vision",), tuned=tuned_file.name) as model:
        data = pickle.dumps(model)
    monkeypatch.chdir("/")
    with pickle.loads(data) as copied:
        assert copied.info.settings == {"vision": VISION}


def test_machines_bundles_and_targets_share_a_file(tiny_bundle: Path, tuned_file: Path) -> None:
    (first,) = read_tuning(tuned_file)
    others = [
        replace(first, machine=replace(first.machine, cores=64)),
        replace(first, manifest_sha256="1" * 64),
        replace(first, target="latency"),
    ]
    for other in others:
        add_entry(tuned_file, other)
    assert read_tuning(tuned_file) == [first, *others]
    again = entry_for(tiny_bundle, text=TowerSettings(batch_size=64))
    add_entry(tuned_file, again)
    *kept, last = read_tuning(tuned_file)
    assert kept == others
    assert {name: tower.settings for name, tower in last.towers.items()} == {
        "vision": VISION, "text": TowerSettings(batch_size=64)
    }  # fmt: skip
    tuned_file.write_text("{")
    with pytest.raises(ConfigurationError):
        add_entry(tuned_file, again)
    assert tuned_file.read_text() == "{"  # what cannot be read is not overwritten


def test_options_are_resolved_once() -> None:
    options = LoadOptions()
    assert options.settings == TowerSettings("fp32", "cpu")
    assert LoadOptions(tuned="latency").precision is None
