"""The ten headline figures of the README, each with its baseline, its hardware and a link to its section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.sections import export, peers, speed, targets
from benchmarks.sections.layout import Section, cosine, hardware, mebibytes

HEADINGS = ("what", "figure", "baseline", "measured on", "details")
PAGE = "docs/benchmarks.md"
SECTION_OF = {section.source: section for section in (*speed.SECTIONS, *export.SECTIONS)}
INT8_CHECKPOINT = "align-tiny"
CAPTIONS = "128 captions of mixed length, baseline padded to 64 tokens, "

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Headline:
    """A row of the README's table.

    Attributes:
        what: what was measured.
        figure: the figure and its baseline, from the result file of `section`.
        section: the section that has the details.
    """

    what: str
    figure: Callable[[Result], tuple[str, str]]
    section: Section

    def row(self, result: Result) -> list[str]:
        """The cells of the row, from the result file of `section`."""
        figure, baseline = self.figure(result)
        link = f"[{self.section.title}]({PAGE}#{self.section.anchor})"
        return [self.what, figure, baseline, hardware(result), link]


def _speedup(
    candidate: str, baseline: str, case: str, single: str | None = None
) -> Callable[[Result], tuple[str, str]]:
    """The speedup in `case`, and beside it that in the case `single`, of one input."""

    def figure(result: Result) -> tuple[str, str]:
        text = targets.speedup_text(targets.compare(result, case, candidate, baseline))
        if single is not None:
            text += f"; one alone {targets.speedup_text(targets.compare(result, single, candidate, baseline))}"
        return text, targets.BASELINES[baseline]

    return figure


def _memory(result: Result) -> tuple[str, str]:
    exact, small = (
        max(start["peak_bytes"] for start in result["starts"] if start["precision"] == precision)
        for precision in ("fp32", "int8")
    )
    return f"{mebibytes(small)}, {small / exact:.2f}×", f"{mebibytes(exact)} in FP32"


def _fp16_cosine(result: Result) -> tuple[str, str]:
    graphs = [graph for graph in result["graphs"] if graph["variant"] == "fp16"]
    return cosine(min(graph["parity"]["min_centred_cosine"] for graph in graphs)), "FP32 PyTorch reference"


def _int8_cosine(result: Result) -> tuple[str, str]:
    values = {
        peer: median(record["mean_cosine"] for record in records)
        for peer, _, records in peers.best_recipes(_draws(result), "vision")
    }
    others = {peer: value for peer, value in values.items() if not peer.startswith(peers.OURS)}
    best = max(others, key=lambda peer: others[peer])
    return f"{values[peers.OURS]:.4f}", f"{others[best]:.4f}, {best}, the best of {len(others)} other tools"


def _int8_top1(result: Result) -> tuple[str, str]:
    draws = _draws(result)
    (recipe,) = [recipe for peer, recipe, _ in peers.best_recipes(draws, "vision") if peer == peers.OURS]
    ours = median(pair["shapes"] for pair in peers.pairs_of(draws, peers.OURS, recipe))
    return f"{ours:.1f} %", f"{draws[0]['float']['shapes']:.1f} % in FP32"


def _draws(result: Result) -> list[Result]:
    return list(result["checkpoints"][INT8_CHECKPOINT]["draws"].values())


HEADLINES = (
    Headline("8 images, FP32", _speedup("fp32", "plain", "pixels 8", "pixels 1"), targets.SECTION),
    Headline("8 images, INT8", _speedup("int8", "plain", "pixels 8", "pixels 1"), targets.SECTION),
    Headline(CAPTIONS + "FP32", _speedup("fp32", "plain", "captions"), targets.SECTION),
    Headline(CAPTIONS + "INT8", _speedup("int8", "plain", "captions"), targets.SECTION),
    Headline("8 JPEG files to embeddings, FP32", _speedup("fp32", "pipeline", "files 8", "files 1"), targets.SECTION),
    Headline("8 JPEG files to embeddings, INT8", _speedup("int8", "pipeline", "files 8", "files 1"), targets.SECTION),
    Headline("peak memory of a process, INT8", _memory, SECTION_OF["align_bench"]),
    Headline("FP16 graphs, smallest mean-centred cosine, emulated", _fp16_cosine, SECTION_OF["full_size"]),
    Headline("INT8 vision graph of align-tiny, mean cosine with the reference", _int8_cosine, peers.SECTION),
    Headline("INT8 align-tiny, zero-shot top-1 over 64 classes", _int8_top1, peers.SECTION),
)


NOTE = (
    "Speed and memory: random weights in the published sizes. Accuracy of INT8: the trained align-tiny, medians over "
    "draws of the calibration data. All of it on CPUs."
)
