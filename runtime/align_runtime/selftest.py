"""The self-test of a bundle: its golden inputs through its own preprocessing, tokenizer and graphs, compared with the
embeddings of the PyTorch reference; and the precision that each graph is labelled with.

Verified: every file is the one that the exporter wrote (sha256), its embeddings on this machine are within the limits
of the manifest, and the MACs that the exporter counted in that file agree with the label. Not verified: who wrote the
manifest: it carries no signature, so someone who replaces a graph, its hash and its counts together is not noticed by
the counts. Compare the sha256 of ``align.json`` with one from a source that you trust.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from align_runtime.backends import open_graph
from align_runtime.bundle import Bundle
from align_runtime.devices import targets_on
from align_runtime.errors import AlignError, BundleError, ConfigurationError, PrecisionError
from align_runtime.foreign_text import shortened
from align_runtime.golden import Golden
from align_runtime.graph_entry import Graph
from align_runtime.images import preprocess
from align_runtime.manifest import Manifest
from align_runtime.outputs import check_answer
from align_runtime.parity import WIDEST, Parity, compare
from align_runtime.precision import check_precision
from align_runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class GraphCheck:
    """What the self-test found for one graph.

    Attributes:
        graph: its entry in the manifest.
        parity: distance from the reference, measured on this machine; None if the graph gives no embeddings.
        failures: one sentence for each failed check; empty when all passed.
    """

    graph: Graph
    parity: Parity | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Omission:
    """A graph that was not checked, and why."""

    graph: Graph
    reason: str


def choose_graphs(
    bundle: Bundle, device: str, precisions: Collection[str] = (), towers: Collection[str] = ()
) -> tuple[list[Graph], list[Omission]]:
    """The graphs of `bundle` to check on `device`, and those that are left out.

    Args:
        precisions: variants, also exact ones such as ``"int8_cpu"``; when empty, all.
        towers: when empty, both.

    Raises:
        BundleError: the bundle has no graphs.
        ConfigurationError: a precision that the bundle does not have, or nothing is left to check.
    """
    graphs = bundle.manifest.graphs
    if not graphs:
        raise BundleError(f"{bundle.folder} has no graphs, so there is nothing to check; export the checkpoint again")
    usable = bundle.graphs_on(device)
    known = [*graphs, *(graph for graph in usable if graph not in graphs)]
    names = list(dict.fromkeys(name for graph in known for name in (graph.variant, graph.exact_variant)))
    for precision in precisions:
        if precision not in names:
            raise ConfigurationError(
                f"precision {shortened(precision)} is not in the bundle {bundle.folder}; it has: {', '.join(names)}"
            )
    chosen, omitted = [], []
    for graph in known:
        if precisions and not {graph.variant, graph.exact_variant} & set(precisions):
            omitted.append(Omission(graph, f"{graph.exact_variant} was not asked for"))
        elif towers and graph.tower not in towers:
            omitted.append(Omission(graph, f"the {graph.tower} tower was not asked for"))
        elif graph not in usable:
            omitted.append(Omission(graph, f"{_why_not(graph, device)}; use --device cpu"))
        else:
            chosen.append(graph)
    if not chosen:
        reasons = "; ".join(f"{omission.graph.file}: {omission.reason}" for omission in omitted)
        raise ConfigurationError(f"no graph of {bundle.folder} is left to check on {device}: {reasons}")
    return chosen, omitted


def _why_not(graph: Graph, device: str) -> str:
    if graph.target in targets_on(device):
        return f"{device} does not run {graph.variant} graphs"
    return f"it is made for {graph.target.upper()}s, not for {device}"


def check_inputs(bundle: Bundle, expected: Golden) -> Iterator[str]:
    """Yields a sentence for each text and image whose tokens or pixels here differ from the reference's."""
    tokenizer = Tokenizer.of_bundle(bundle)
    input_ids, attention_mask = tokenizer.pad(tokenizer.encode(expected.texts), expected.input_ids.shape[1])
    differ = (input_ids != expected.input_ids).any(axis=1) | (attention_mask != expected.attention_mask).any(axis=1)
    for text, differs in zip(expected.texts, differ, strict=True):
        if differs:
            yield f"the tokens of {text!r} differ from the reference's"
    pixels = preprocess(expected.images, bundle.manifest.preprocessing)
    for image, here, there in zip(expected.images, pixels, expected.pixels, strict=True):
        share = float((here != there).mean())
        if share:
            yield f"the pixels of {image.name} differ from the reference's in {share:.2%} of the values"


def check_graph(bundle: Bundle, graph: Graph, expected: Golden, device: str, threads: int | None) -> GraphCheck:
    """Runs `graph` on the golden inputs and compares with the golden embeddings, within the limits of its entry.

    Raises:
        BundleError: a file with another hash, or a graph that cannot be loaded.
        AlignError: the device is unknown or not available.
    """
    for name in graph.files:
        bundle.check_hash(name)
    runner = open_graph(bundle, graph, device, threads, check_hashes=False)
    inputs = graph_inputs(graph, bundle.manifest, expected)
    parity, failures = None, []
    try:
        actual = check_answer(bundle, graph, device, inputs, runner.run(inputs))
        if graph.tower == "text":
            parity = compare(actual, expected.text_embeds, [repr(text) for text in expected.texts])
        else:
            parity = compare(actual, expected.image_embeds, [image.name for image in expected.images])
        parity.check(graph.file, graph.limits)
    except AlignError as error:  # also a run that fails: the other graphs are still checked
        failures.append(str(error))
    finally:
        runner.close()
    try:
        check_precision(graph.file, graph.variant, graph.content)
    except PrecisionError as error:
        failures.append(str(error))
    return GraphCheck(graph, parity, tuple(failures))


def wide_limits(graphs: Iterable[Graph]) -> list[str]:
    """A sentence for each of `graphs` whose limits, which the bundle gives of itself, are wider than `WIDEST`."""
    found = []
    for graph in graphs:
        widest = WIDEST.get(graph.variant)
        for name in () if widest is None else graph.limits.wider_than(widest):
            found.append(
                f"{graph.file}: the bundle allows itself {name} {getattr(graph.limits, name):g}, wider than the "
                f"{getattr(widest, name):g} that align-onnx allows in {graph.variant}; if it was exported with "
                "limits of its own, verify with --accept-limits"
            )
    return found


def graph_inputs(graph: Graph, manifest: Manifest, expected: Golden) -> dict[str, NDArray[Any]]:
    """The golden inputs by the names and in the layout that `graph` takes."""
    if graph.tower == "text":
        return {"input_ids": expected.input_ids, "attention_mask": expected.attention_mask}
    if graph.inputs[0].name == "pixels":
        return {"pixels": expected.pixels}
    return {graph.inputs[0].name: manifest.preprocessing.normalize(expected.pixels)}
