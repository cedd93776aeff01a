"""The export: checkpoint in, bundle out, or an error and nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
from torch import nn

from align_exporter import gate, samples
from align_exporter.assets import TokenizerAssets, check_vocabulary, read_preprocessing, read_tokenizer
from align_exporter.contract import GraphContract, text_contract, vision_contract
from align_exporter.graph_check import check_file, check_operators
from align_exporter.options import ExportOptions
from align_exporter.packed_text import PackedTextTower
from align_exporter.passes import Step, run_steps
from align_exporter.passes.pipeline import text_steps, vision_steps
from align_exporter.towers import NormalizedVisionTower, TextTower, VisionTower
from align_exporter.trace import trace
from align_exporter.weight_file import WeightFile
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel
from align_reference.source import CheckpointSource
from align_runtime import golden
from align_runtime.bundle import Bundle, inventory, staged, write_manifest
from align_runtime.console import Progress
from align_runtime.errors import BuildError
from align_runtime.golden import Golden
from align_runtime.manifest import Graph, Manifest, ModelFacts, Provenance
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.selftest import check_graph, check_inputs
from align_runtime.tokenizer import Tokenizer

DEFAULT_MAX_LENGTH = 64  # what AlignProcessor pads to where the tokenizer names no limit of its own
TEXT_WEIGHTS = "onnx/text_model.onnx_data"  # of both text graphs, under the Hub's name for external data


@dataclass(frozen=True)
class Checkpoint:
    """All that a checkpoint folder holds, read."""

    model: AlignModel
    preprocessing: ImagePreprocessing
    tokenizer: TokenizerAssets
    facts: ModelFacts


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
        job = _Job(checkpoint, answers, folder, options, progress)
        graphs = tuple(_build_graph(job, plan) for plan in _plans(checkpoint, options.pixel_input, folder))
        with progress.phase("bundle and self-test"):
            golden.write(folder, answers)
            _write_configs(folder, source, checkpoint.preprocessing)
            write_manifest(
                folder,
                Manifest(
                    provenance=provenance,
                    model=checkpoint.facts,
                    preprocessing=checkpoint.preprocessing,
                    graphs=graphs,
                    files=inventory(folder),
                ),
            )
            return _self_test(folder)


def read_checkpoint(source: CheckpointSource, allow_pickle: bool) -> Checkpoint:
    """Reads weights, processor and tokenizer and checks that they fit each other.

    Raises:
        CheckpointError, ConfigurationError: as the readers of the three.
    """
    preprocessing = read_preprocessing(source.folder)
    tokenizer = read_tokenizer(source.folder)
    model = load_model(source.folder, allow_pickle=allow_pickle)
    text = model.config.text
    check_vocabulary(tokenizer, text.vocab_size)
    facts = ModelFacts(
        embedding_dim=model.config.projection_dim,
        temperature=float(model.temperature),
        max_length=min(tokenizer.max_length or DEFAULT_MAX_LENGTH, text.max_position_embeddings),
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text.vocab_size,
    )
    return Checkpoint(model, preprocessing, tokenizer, facts)


@dataclass(frozen=True)
class _Job:
    checkpoint: Checkpoint
    answers: Golden
    folder: Path
    options: ExportOptions
    progress: Progress


def _answers(checkpoint: Checkpoint, tokenizer_file: Path) -> Golden:
    facts = checkpoint.facts
    tokenizer = Tokenizer.from_file(tokenizer_file, facts.max_length, facts.pad_token_id)
    return samples.reference_answers(
        checkpoint.model, checkpoint.preprocessing, tokenizer, samples.pictures(), samples.captions()
    )


@dataclass(frozen=True)
class _Plan:
    """A graph to build. `weights` is where its weights go; None: into the graph itself."""

    contract: GraphContract
    tower: nn.Module
    steps: tuple[Step, ...]
    target: str = "any"
    weights: WeightFile | None = None

    @property
    def title(self) -> str:
        return self.contract.tower if self.target == "any" else f"{self.contract.tower} for {self.target}"

    @property
    def file(self) -> str:
        return f"onnx/{self.contract.tower}_model{'' if self.target == 'any' else f'_{self.target}'}.onnx"


def _plans(checkpoint: Checkpoint, pixel_input: str, folder: Path) -> list[_Plan]:
    model, preprocessing = checkpoint.model, checkpoint.preprocessing
    vision: nn.Module
    if pixel_input == "uint8":
        vision = VisionTower(model, *preprocessing.scale_and_offset())
    else:
        vision = NormalizedVisionTower(model)
    images = vision_contract(model.config, preprocessing.output_size, pixel_input)
    texts, text_weights = text_contract(model.config), WeightFile(folder / TEXT_WEIGHTS)
    packed = PackedTextTower(model).eval()
    return [
        _Plan(images, vision.eval(), vision_steps(model.config)),
        _Plan(texts, TextTower(model).eval(), text_steps(model.config), weights=text_weights),
        _Plan(texts, packed, text_steps(model.config, "cpu"), target="cpu", weights=text_weights),
    ]


def _build_graph(job: _Job, plan: _Plan) -> Graph:
    config, contract = job.checkpoint.model.config, plan.contract
    with job.progress.phase(f"{plan.title}: trace"):
        traced = trace(plan.tower, contract, config.text.max_position_embeddings, job.options.opset)
    with job.progress.phase(f"{plan.title}: passes and checks"):
        run_steps(traced, plan.steps)
        check_operators(traced, contract, config, plan.target)
        if plan.weights is not None:
            plan.weights.move(traced)
        write_graph(traced, contract, job.folder / plan.file)
        check_file(job.folder / plan.file, contract, job.options.opset)
    with job.progress.phase(f"{plan.title}: parity with the reference"):
        parity = gate.measure(job.folder / plan.file, contract, job.checkpoint.preprocessing, job.answers)
        parity.check(plan.file, gate.LIMITS["fp32"])
    return Graph(
        tower=contract.tower,
        variant="fp32",
        precision="fp32",
        target=plan.target,
        file=plan.file,
        data=None if plan.weights is None else plan.weights.path.relative_to(job.folder).as_posix(),
        opset=job.options.opset,
        inputs=contract.inputs,
        outputs=(contract.output,),
        parity=parity,
        limits=gate.LIMITS["fp32"],
    )


def write_graph(model: ir.Model, contract: GraphContract, file: Path) -> None:
    """Writes `model`: the same model gives the same bytes."""
    model.graph.name = f"align_{contract.tower}"
    model.producer_name, model.producer_version = "align-onnx", version("align-onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, file)


def _write_configs(folder: Path, source: CheckpointSource, preprocessing: ImagePreprocessing) -> None:
    """The Hub's files, so that other tools can read the bundle too; the runtime itself reads the manifest."""
    (folder / "config.json").write_bytes((source.folder / "config.json").read_bytes())
    text = json.dumps(preprocessing.to_hub(), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _self_test(folder: Path) -> Manifest:
    """Opens the finished bundle as a user does and lets it test itself."""
    bundle = Bundle.open(folder)
    expected = golden.read(bundle)
    failures = list(check_inputs(bundle, expected))
    checks = [check_graph(bundle, graph, expected, "cpu", None) for graph in bundle.manifest.graphs]
    failures += [check.failure for check in checks if check.failure]
    if failures:
        raise BuildError(f"the finished bundle fails its own test: {'; '.join(failures)}")
    return bundle.manifest
