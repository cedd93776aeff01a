"""The export: checkpoint in, bundle out, or an error and nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align_exporter import samples
from align_exporter.build_record import build_record
from align_exporter.checkpoint import Checkpoint, read_checkpoint
from align_exporter.graphs import GraphBuilder
from align_exporter.int8.calibration_pictures import find_pictures
from align_exporter.options import ExportOptions
from align_exporter.plans import plans
from align_exporter.report import write_report
from align_reference.source import CheckpointSource
from align_runtime import golden
from align_runtime.bundle import Bundle, inventory, staged, write_manifest
from align_runtime.console import Progress
from align_runtime.errors import BuildError, ConfigurationError
from align_runtime.golden import Golden
from align_runtime.images import preprocess
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
        with progress.phase("reference embeddings of the samples"):
            answers = _answers(checkpoint, folder / "tokenizer.json")
        pixels = _calibration_pixels(checkpoint, answers, options, progress)
        builder = GraphBuilder(checkpoint, answers, pixels, folder, options, progress, operators=set())
        built = [graph for plan in plans(checkpoint, options.pixel_input, folder) for graph in builder.build(plan)]
        _check_patterns(options.fp16_keep, builder.operators)
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
            write_report(folder, build_record(manifest, built, options.fp16_headroom, progress.finished))
        return manifest


def _answers(checkpoint: Checkpoint, tokenizer_file: Path) -> Golden:
    facts = checkpoint.facts
    tokenizer = Tokenizer.from_file(tokenizer_file, facts.max_length, facts.pad_token_id)
    return samples.reference_answers(
        checkpoint.model, checkpoint.preprocessing, tokenizer, samples.pictures(), samples.captions()
    )


def _calibration_pixels(
    checkpoint: Checkpoint, answers: Golden, options: ExportOptions, progress: Progress
) -> NDArray[np.uint8]:
    """The pictures that INT8 scales are measured on, uint8 (n, height, width, 3).

    Raises:
        InputError: one that cannot be read.
    """
    if options.int8_pictures is None:
        return answers.pixels
    with progress.phase("pictures for INT8"):
        return preprocess(find_pictures(Path(options.int8_pictures)), checkpoint.preprocessing)


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
