"""Models of Triton's ONNX Runtime and TensorRT backends: the graphs of a bundle, with their own inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from align_runtime.backends.buckets import default_lengths
from align_runtime.backends.onnxruntime import INEXACT_WITHOUT_VNNI
from align_runtime.bundle import Bundle, sha256_of
from align_runtime.engine_targets import TENSORRT as TENSORRT_RUNTIME
from align_runtime.engine_targets import Machine
from align_runtime.engines import EngineEntry, read_engines, read_plan, source_of
from align_runtime.errors import BundleError, ConfigurationError
from align_runtime.foreign_text import cut, shortened
from align_runtime.golden import Golden
from align_runtime.graph_entry import CPU_TARGET, Graph
from align_runtime.trimming import put_copy
from align_serving.triton.contract import (
    BATCHES,
    CONTRACT,
    LENGTHS,
    PRECISION,
    contract_of,
    graph_model_name,
    tensor,
)
from align_serving.triton.model_config import ModelConfig, Profile, WarmUp
from align_serving.triton.options import ONNXRUNTIME, TENSORRT, ServingOptions
from align_serving.triton.served_model import ServedModel, batches_for, longest_text, warm_up_batches

GRAPH_FILE, PLAN_FILE = "model.onnx", "model.plan"
NEEDS_VNNI = f"{INEXACT_WITHOUT_VNNI} Triton's ONNX Runtime backend cannot set it: without VNNI, use --backend python."


def graph_model(bundle: Bundle, tower: str, options: ServingOptions, golden: Golden) -> ServedModel:
    """The model of the graph of `tower`.

    Raises:
        ConfigurationError: the bundle has no such graph for the device, or not one engine of it.
    """
    assert options.device is not None
    graph = bundle.graph(tower, options.precision, options.device)
    engine = _engine(bundle, graph, options) if options.backend == TENSORRT else None
    profiles = () if engine is None else tuple(_profile(shapes) for shapes in engine.profiles)
    lengths: tuple[int, ...] = ()
    if tower == "text":
        (first, *_) = (spec.name for spec in graph.inputs)
        lengths = tuple(sorted({profile.dims[first][0] for profile in profiles}))
        lengths = lengths or default_lengths(bundle.manifest.model.max_length)
    # TensorRT's backend runs a shape that a profile holds and no other: what the batcher makes would not fit.
    fixed = tuple(sorted({profile.batch for profile in profiles}))
    preferred = () if fixed else batches_for(bundle, graph, options)
    parameters = {
        CONTRACT: contract_of(bundle, graph),
        PRECISION: graph.exact_variant,
        LENGTHS: " ".join(map(str, lengths)),
        BATCHES: " ".join(map(str, fixed)),
    }
    if options.backend == ONNXRUNTIME and options.threads is not None:
        parameters["intra_op_thread_count"] = str(options.threads)
    inputs = _golden_row(bundle, graph, golden)
    note = NEEDS_VNNI if graph.target == CPU_TARGET and graph.quantization is not None else ""
    remark = f"The {tower} graph in {graph.exact_variant} of {bundle.manifest.provenance.name}, by align-triton."
    config = ModelConfig(
        name=graph_model_name(options.name, tower),
        backend=options.backend,
        remark=f"{remark} {note}".strip(),
        inputs=tuple(map(tensor, graph.inputs)),
        outputs=tuple(map(tensor, graph.outputs)),
        max_batch=(fixed or preferred)[-1],
        preferred=preferred,
        queue_delay=options.queue_delay,
        queue_size=options.queue_size,
        on_gpu=options.on_gpu,
        instances=options.instances,
        parameters={key: value for key, value in parameters.items() if value},
        warm_ups=tuple(
            _warm_up(batch, length, inputs)
            for batch in fixed or warm_up_batches(preferred)
            for length in lengths or (None,)
        ),
        profiles=profiles,
    )
    return ServedModel(
        config=config,
        graph=graph,
        contract=" ".join([parameters[CONTRACT], parameters[LENGTHS], parameters[BATCHES]]),
        write=partial(_write_graph, bundle, graph, options.link)
        if engine is None
        else partial(_write_plan, bundle, engine, options.link),
        note=note,
    )


def _golden_row(bundle: Bundle, graph: Graph, golden: Golden) -> dict[str, NDArray[Any]]:
    if graph.tower == "vision":
        (spec,) = graph.inputs
        pixels = golden.pixels[:1]
        return {spec.name: (pixels if spec.name == "pixels" else bundle.manifest.preprocessing.normalize(pixels))[0]}
    row = longest_text(golden)
    return {"input_ids": golden.input_ids[row], "attention_mask": golden.attention_mask[row]}


def _warm_up(batch: int, length: int | None, inputs: Mapping[str, NDArray[Any]]) -> WarmUp:
    """Golden inputs; of a text its first `length` tokens, with padding up to that many."""
    rows = {name: row if length is None else _resized(row, length) for name, row in inputs.items()}
    suffix = "" if length is None else f".{length}"
    return WarmUp(
        batch=batch,
        inputs={name: f"{name}{suffix}" for name in rows},
        dims={name: row.shape for name, row in rows.items()},
        files={f"{name}{suffix}": row.tobytes() for name, row in rows.items()},
    )


def _resized(row: NDArray[Any], length: int) -> NDArray[Any]:
    result = row[:length].copy()
    result.resize(length, refcheck=False)  # zeros: the mask of padding, and ids that the mask hides
    return result


def _profile(shapes: Mapping[str, tuple[int, ...]]) -> Profile:
    (batch,) = {shape[0] for shape in shapes.values()}
    return Profile(batch, {name: shape[1:] for name, shape in shapes.items()})


def _engine(bundle: Bundle, graph: Graph, options: ServingOptions) -> EngineEntry:
    """The TensorRT engine of `graph`: the only one, or that of the GPU which is named."""
    wanted = (graph.tower, graph.variant, TENSORRT_RUNTIME)
    found = [
        entry
        for entry in read_engines(bundle).entries
        if (entry.tower, entry.variant, entry.runtime) == wanted and entry.source == source_of(bundle, graph)
    ]
    gpus = {entry.file: entry.machine.gpu for entry in found if isinstance(entry.machine, Machine)}
    chosen = [entry for entry in found if options.gpu in (None, gpus[entry.file])]
    if len(chosen) == 1:
        return chosen[0]
    listed = cut("; ".join(f"{file} for {gpu}" for file, gpu in gpus.items()), 200) or "none"
    advice = "name one with --gpu" if len(set(gpus.values())) > 1 else "keep one of them, or build it with --engine"
    asked = "" if options.gpu is None else f" for {shortened(options.gpu)}"
    raise ConfigurationError(
        f"expected one TensorRT engine of the {graph.tower} tower in {graph.variant}{asked}, got {len(chosen)}; the "
        f"bundle has: {listed}; {advice}"
    )


def _write_graph(bundle: Bundle, graph: Graph, link: bool, folder: Path) -> None:
    bundle.graph_file(graph)
    for name in graph.files:  # weights keep their name, by which the graph asks for them
        target = folder / (GRAPH_FILE if name == graph.file else Path(name).name)
        if target.exists():
            raise BundleError(f"{bundle.folder}: weights in {name} would take the place of the graph; export again")
        put_copy(bundle.path(name), target, link)
        bundle.check_digest(name, sha256_of(target))


def _write_plan(bundle: Bundle, engine: EngineEntry, link: bool, folder: Path) -> None:
    read_plan(bundle, engine)  # compares its sha256
    put_copy(bundle.folder / engine.file, folder / PLAN_FILE, link)
