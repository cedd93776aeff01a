"""The export: checkpoint in, bundle out, or an error and nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from align_calibration.dataset.calibration_dataset import SAMPLES_NAME, CalibrationDataset
from align_exporter import builtin_samples as samples
from align_exporter.calibration_inputs import CalibrationInputs
from align_exporter.checkpoint.loading import Checkpoint, read_checkpoint
from align_exporter.engine.cache import keep_engines
from align_exporter.export_options import ExportOptions
from align_exporter.graph.files import GraphFiles
from align_exporter.graph.specs import graph_specs
from align_exporter.graph_builder import GraphBuilder
from align_exporter.report import write_report
from align_exporter.report.build_record import build_record
from align_reference.source import CheckpointSource
from align_runtime import golden
from align_runtime.bundle import Bundle, inventory, staged, write_manifest
from align_runtime.console import Progress
from align_runtime.errors import BuildError, ConfigurationError
from align_runtime.manifest import Manifest, Provenance
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.selftest import check_graph, check_inputs
from align_runtime.tokenizer import Tokenizer


def build(
    source: CheckpointSource, provenance: Provenance, output: Path, options: ExportOptions, progress: Progress
) -> Manifest:
    """Exports `source` to a bundle at `output`, which takes the place of an older bundle there.

    Raises:
        AlignError: see `align_runtime.errors`; `output` is then as it was before.
    """
    with staged(output) as folder:
        with progress.phase(f"read {source.name}"):
            checkpoint = read_checkpoint(source, options.allow_pickle)
            (folder / "tokenizer.json").write_text(checkpoint.tokenizer.json, encoding="utf-8")
        tokenizer = Tokenizer.from_file(
            folder / "tokenizer.json", checkpoint.facts.max_length, checkpoint.facts.pad_token_id
        )
        own = _usable(options.samples, checkpoint, tokenizer, folder, progress)
        with progress.phase("reference embeddings of the samples"):
            answers = samples.reference_answers(
                checkpoint.model, checkpoint.preprocessing, tokenizer, samples.images(), samples.captions()
            )
        observed = CalibrationInputs(answers, checkpoint, tokenizer, own, holds_out=options.has_target)
        if options.has_target:
            observed.check_held_out()
        files = GraphFiles(checkpoint, answers, folder, options, progress)
        builder = GraphBuilder(files, observed)
        built = [
            graph for plan in graph_specs(checkpoint, options.pixel_input, folder) for graph in builder.build(plan)
        ]
        operators = {name for entry in built if entry.halving for name in entry.halving.operators}
        _check_patterns(options.fp16_keep, operators)
        with progress.phase("bundle and self-test"):
            golden.write(folder, answers)
            _write_configs(folder, source, checkpoint.preprocessing)
            manifest = Manifest(
                provenance=provenance,
                model=checkpoint.facts,
                preprocessing=checkpoint.preprocessing,
                graphs=tuple(entry.graph for entry in built),
                files=inventory(folder),
            )
            write_manifest(folder, manifest)
            _self_test(folder)
        with progress.phase("report"):
            # After the inventory: a report tells of one build and its times, the manifest of what any build gives.
            write_report(folder, build_record(manifest, built, options.fp16_headroom, progress.finished, own))
            keep_engines(output, folder, manifest)
        return manifest


def _usable(
    chosen: CalibrationDataset | None, checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> CalibrationDataset | None:
    """The user's samples that can be used; recorded in `folder`."""
    if chosen is None:
        return None
    own = chosen.usable(checkpoint.preprocessing, tokenizer, progress)
    (folder / SAMPLES_NAME).write_text(json.dumps(own.to_json(), indent=1) + "\n", encoding="utf-8")
    return own


def _check_patterns(patterns: Sequence[str], operators: Collection[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(operator, pattern) for operator in operators):
            raise ConfigurationError(
                f"--fp16-keep {pattern!r} names no operator of any graph; the names are those of the ONNX graphs, e.g. "
                f"{min(operators, key=len)!r} or {max(operators, key=len)!r}"
            )


def _write_configs(folder: Path, source: CheckpointSource, preprocessing: ImagePreprocessing) -> None:
    """The Hub's files, so that other tools can read the bundle too; the runtime itself reads the manifest."""
    (folder / "config.json").write_bytes((source.folder / "config.json").read_bytes())
    text = json.dumps(preprocessing.to_hub(), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _self_test(folder: Path) -> None:
    """Opens the finished bundle as a user does and lets it test itself."""
    bundle = Bundle.open(folder)
    expected = golden.read(bundle)
    failures = list(check_inputs(bundle, expected))
    checks = [check_graph(bundle, graph, expected, "cpu", None) for graph in bundle.manifest.graphs]
    failures += [failure for check in checks for failure in check.failures]
    if failures:
        raise BuildError(f"the finished bundle fails its own test: {'; '.join(failures)}")
