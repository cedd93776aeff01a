"""The whole export, in its order: a checkpoint in, a bundle out, or an error and nothing.

read the checkpoint and the calibration dataset
reference embeddings of the built-in samples
for each FP32 graph (vision, text, text for CPUs):
    trace → passes → checks → write → parity gate
    for each variant that is made from it (see variants.py):
        build a draft → checks → write → parity gate → speed
golden vectors, manifest, engines of the bundle before
self-test of the finished bundle
report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from align_calibration.dataset.calibration_dataset import DATASET_NAME, CalibrationDataset
from align_exporter import builtin_samples, parity_gate
from align_exporter.build_types import BaseGraph, BuiltGraph, Draft, Run
from align_exporter.calibration_inputs import CalibrationInputs
from align_exporter.checkpoint.read_checkpoint import Checkpoint, read_checkpoint
from align_exporter.export_options import ExportOptions
from align_exporter.graph.checks import check_file, check_operators
from align_exporter.graph.content import checked_content
from align_exporter.graph.passes.order import CLEAN_UP, run_steps
from align_exporter.graph.specs import GraphSpec, graph_specs
from align_exporter.graph.trace import trace
from align_exporter.int8.speed import Inputs, caption_cases, check_faster, check_fused, compare_speed, image_cases
from align_exporter.report.record import build_record
from align_exporter.report.render import write_report
from align_exporter.trt_lint import check_tensorrt
from align_exporter.variants import Variant, imported
from align_reference.source import CheckpointSource
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.bundle_writing import check_space, inventory, staged, write_manifest
from align_runtime.engine_files import keep_engines
from align_runtime.errors import BuildError, CheckpointError, ConfigurationError, ParityError
from align_runtime.graph_entry import Graph, Quantization
from align_runtime.json_files import MAX_JSON_BYTES
from align_runtime.manifest import Manifest, Provenance
from align_runtime.onnxruntime_import import check_onnxruntime
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.progress import Progress
from align_runtime.regular_files import read_regular
from align_runtime.selftest import check_graph, check_inputs
from align_runtime.tokenizer import Tokenizer

ELEMENT_BYTES = {"float32": 4, "float16": 2, "int8": 1}
FOLDED_SHARE = 0.1  # of the weights, generously


def build_bundle(
    source: CheckpointSource, provenance: Provenance, output: Path, options: ExportOptions, progress: Progress
) -> Manifest:
    """Exports `source` to a bundle at `output`, which takes the place of an older bundle there.

    Raises:
        AlignError: see `align_runtime.errors`; `output` is then as it was before.
    """
    with staged(output) as folder:
        run = _read_inputs(source, folder, options, progress)
        built = [graph for spec in _specs(run) for graph in _build_graphs(run, spec)]
        _check_patterns(options.fp16_keep, built)
        with progress.phase("bundle and self-test"):
            golden.write(folder, run.answers)
            _write_configs(folder, source, run.checkpoint.preprocessing)
            manifest = Manifest(
                provenance=replace(provenance, notes=run.checkpoint.notes),
                model=run.checkpoint.facts,
                preprocessing=run.checkpoint.preprocessing,
                graphs=tuple(entry.graph for entry in built),
                files=inventory(folder),
            )
            write_manifest(folder, manifest)
            keep_engines(output, folder, manifest)
            _self_test(folder)
        with progress.phase("report"):
            # After the inventory: a report describes one build and its times, the manifest what every build gives.
            write_report(
                folder, build_record(manifest, built, options.fp16_headroom, progress.finished, run.inputs.dataset)
            )
        return manifest


def _read_inputs(source: CheckpointSource, folder: Path, options: ExportOptions, progress: Progress) -> Run:
    for row in options.variants:
        check_onnxruntime(row.name, row.target)  # before minutes of work
    with progress.phase(f"read {source.name}"):
        checkpoint = read_checkpoint(source, options)
        if options.engines is not None:
            options.engines.lengths_up_to(checkpoint.facts.max_length)  # before minutes of work
        for note in checkpoint.notes:
            progress.warn(note)
        check_space(folder, _least_bytes(checkpoint, options))
        (folder / "tokenizer.json").write_text(checkpoint.tokenizer.json, encoding="utf-8")
    tokenizer = Tokenizer.from_file(
        folder / "tokenizer.json", checkpoint.facts.max_length, checkpoint.facts.pad_token_id
    )
    dataset = _usable(options.dataset, checkpoint, tokenizer, folder, progress)
    with progress.phase("reference embeddings of the built-in samples"):
        answers = builtin_samples.reference_answers(
            checkpoint.model,
            checkpoint.preprocessing,
            tokenizer,
            builtin_samples.images(),
            builtin_samples.captions(),
        )
    inputs = CalibrationInputs(answers, checkpoint, tokenizer, dataset, holds_out=options.has_int8_target)
    if options.has_int8_target:
        inputs.check_held_out()
    return Run(checkpoint, answers, inputs, folder, options, progress)


def _least_bytes(checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Bytes that the graphs take at least: every weight in the smallest type of its variant, less what passes fold."""
    weights = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    per_weight = ELEMENT_BYTES["float32"] + sum(ELEMENT_BYTES[row.element_type] for row in options.variants)
    return int((1 - FOLDED_SHARE) * weights * per_weight)


def _usable(
    dataset: CalibrationDataset | None, checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> CalibrationDataset | None:
    """The samples of `dataset` that can be decoded; recorded in `folder`."""
    if dataset is None:
        return None
    usable = dataset.decodable(checkpoint.preprocessing, tokenizer, progress)
    (folder / DATASET_NAME).write_text(json.dumps(usable.to_json(), indent=1) + "\n", encoding="utf-8")
    return usable


def _specs(run: Run) -> list[GraphSpec]:
    return graph_specs(run.checkpoint, run.options.pixel_input, run.folder)


def _build_graphs(run: Run, spec: GraphSpec) -> Iterator[BuiltGraph]:
    """The FP32 graph of `spec`, then every variant asked for that is made from it.

    Raises:
        BuildError, PrecisionError, ParityError: a check or the parity gate failed.
    """
    base = _traced(run, spec)
    yield _write_and_check(base, spec.variant, Draft(base.model))
    for variant in run.options.variants:
        if variant.base in spec.serves:
            draft: Draft = imported(variant.builder or "")(base)
            yield _write_and_check(base, variant, draft)


def _traced(run: Run, spec: GraphSpec) -> BaseGraph:
    """The FP32 graph of `spec` in its final form; weights that several graphs share are in their file."""
    title, config = spec.title, run.checkpoint.model.config
    with run.progress.phase(f"{title}: trace"):
        model = trace(spec.tower, spec.contract, config.text.max_position_embeddings, run.options.opset)
        _dump(run, spec, "traced", model)
    with run.progress.phase(f"{title}: passes"):
        passes = run_steps(model, spec.steps)
        _dump(run, spec, "final", model)
        check_operators(model, spec.contract, config, spec.target)
    for count in passes:
        if not count.is_expected:
            run.progress.warn(f"{title}: {count}; the graph is correct without this optimization")
    if spec.weights is not None:
        spec.weights.move(model)
    return BaseGraph(run, spec, model, passes)


def _dump(run: Run, spec: GraphSpec, stage: str, model: ir.Model) -> None:
    """Writes `model` beside the file of ``--dump-graph``, under its graph's name, if `stage` was asked for."""
    wanted, file = run.options.dump_graph or ("", Path())
    if stage == wanted:
        ir.save(model, file.with_name(f"{file.stem}.{Path(spec.file).stem}{file.suffix}"))


def _write_and_check(base: BaseGraph, variant: Variant, draft: Draft) -> BuiltGraph:
    """Writes `draft`, and has every check that the finished file must pass look at it."""
    run, spec, tower = base.run, base.spec, base.tower
    file, title = variant.file(tower), variant.title(tower)
    is_base = variant.builder is None
    data = spec.weights.path.relative_to(run.folder).as_posix() if is_base and spec.weights is not None else None
    with run.progress.phase(f"{title}: checks"):
        if not is_base:
            ir.external_data.load_to_model(draft.model)  # only FP32 graphs share a file of weights
            run_steps(draft.model, CLEAN_UP)
        write_graph(draft.model, f"align_{tower}", run.folder / file, variant.note)
        check_file(run.folder / file, spec.contract, run.options.opset, None if data is None else Path(data).name)
        if variant.is_for_tensorrt:
            check_tensorrt(run.folder / file)
        if draft.kernels:
            check_fused(run.folder / file, draft.kernels)
    limits = parity_gate.limits(variant, tower, run.options)
    with run.progress.phase(f"{title}: parity with the reference"):
        preprocessing = run.checkpoint.preprocessing
        measurement = parity_gate.measure(run.folder / file, variant, spec.contract, preprocessing, run.answers)
        try:
            measurement.parity.check(file, limits)
        except ParityError as error:
            raise error.advised(draft.advice) from None
    draft = _with_speed(base, variant, draft)
    graph = Graph(
        tower=tower,
        variant=variant.name,
        target=variant.target,
        file=file,
        data=data,
        opset=run.options.opset,
        inputs=spec.contract.inputs,
        outputs=(spec.contract.output,),
        parity=measurement.parity,
        limits=limits,
        content=checked_content(run.folder, file, variant.name, run.checkpoint.facts.max_length),
        islands=() if draft.fp16 is None else draft.fp16.islands,
        quantization=None if draft.int8 is None else _quantization(draft),
    )
    return BuiltGraph(graph, measurement, draft.fp16, draft.int8, base.passes if is_base else ())


def write_graph(model: ir.Model, name: str, file: Path, note: str = "") -> None:
    """Writes `model` under `name` and with `note` as its doc_string to `file`: the same model gives the same bytes."""
    model.graph.name, model.doc_string = name, note or None
    model.producer_name, model.producer_version = "align-onnx", version("align-onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, file)


def _with_speed(base: BaseGraph, variant: Variant, draft: Draft) -> Draft:
    """`draft` with its speed against its baselines, where it has any; they lie in the bundle, as it does."""
    if draft.int8 is None or not variant.baselines:
        return draft
    run, tower = base.run, base.tower
    files = {"fp32": run.folder / base.spec.file}
    files |= {row.name: run.folder / row.file(tower) for row in run.options.variants if row.name in variant.baselines}
    candidate = run.folder / variant.file(tower)
    with run.progress.phase(f"{variant.title(tower)}: speed"):
        speed = compare_speed(candidate, files, _speed_cases(base))
    if run.options.require_faster:
        check_faster(variant.file(tower), speed)
    return replace(draft, int8=replace(draft.int8, speed=speed))


def _speed_cases(base: BaseGraph) -> Mapping[str, Inputs]:
    if base.tower == "text":
        return caption_cases(base.run.answers)
    return image_cases(base.run.inputs.samples_at_once(base.spec.contract))


def _quantization(draft: Draft) -> Quantization:
    assert draft.int8 is not None
    return Quantization(draft.int8.scheme, draft.int8.samples, draft.int8.speedup, draft.int8.kept)


def _check_patterns(patterns: Sequence[str], built: Sequence[BuiltGraph]) -> None:
    operators = {name for entry in built if entry.fp16 is not None for name in entry.fp16.operators}
    for pattern in patterns:
        if not any(fnmatchcase(operator, pattern) for operator in operators):
            raise ConfigurationError(
                f"--fp16-keep {pattern!r} matches no operator of any graph; the names are those of the ONNX graphs, "
                f"e.g. {min(operators, key=len)!r} or {max(operators, key=len)!r}"
            )


def _write_configs(folder: Path, source: CheckpointSource, preprocessing: ImagePreprocessing) -> None:
    """The Hub's files, so that other tools can read the bundle too; the runtime itself reads the manifest."""
    config = read_regular(source.folder / "config.json", MAX_JSON_BYTES, CheckpointError)
    (folder / "config.json").write_bytes(config)
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
