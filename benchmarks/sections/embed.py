"""Sections on bulk embedding: its throughput and memory, and the recall of stored embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.sections.layout import Section, mebibytes, table

DEPTHS = ("1", "10", "100")


def throughput_lines(result: Mapping[str, Any]) -> list[str]:
    """Throughput against the bare loop, and resident memory at a quarter of the time and at the end."""
    rows = []
    for case in result["cases"]:
        loop, ours = case["runs"]["loop"], case["runs"]["align-embed"]
        ratios = [bare["seconds"] / embed["seconds"] for bare, embed in zip(loop, ours, strict=True)]
        quarter = [run["resident_bytes"][len(run["resident_bytes"]) // 4] for run in ours]
        rows.append(
            (
                f"{ours[0]['rows']:,} {case['name']}",
                *(f"{median(run['rows'] / run['seconds'] for run in runs):,.0f}/s" for runs in (loop, ours)),
                f"{median(ratios):.2f}×",
                mebibytes(median(quarter)),
                mebibytes(median(run["resident_bytes"][-1] for run in ours)),
            )
        )
    return [
        "`align-embed` to Parquet, and the bare loop over `iter_embed_texts` or `iter_embed_images`, which keeps no "
        f"rows, with {result['bundle']} in fresh processes; medians, the ratio of paired rounds.",
        "",
        *table(
            ("items", "loop", "align-embed", "align-embed / loop", "resident at a quarter of the time", "at the end"),
            rows,
        ),
    ]


def ray_lines(result: Mapping[str, Any]) -> list[str]:
    """Throughput of one and two actors, and of the runtime on one and two cores."""
    rates = result["rates"]
    ratio = {
        name: median(two / one for one, two in zip(rates[first], rates[second], strict=True))
        for name, first, second in (
            ("runtime", "runtime, one core", "runtime, two cores"),
            ("Ray", "Ray, one actor", "Ray, two actors"),
        )
    }
    return [
        f"{result['texts']:,} captions with align-tiny, medians of {len(rates['Ray, two actors'])} rounds; Ray's are "
        f"timed from the first batch to the last. Two cores are {ratio['runtime']:.2f} × one, two actors "
        f"{ratio['Ray']:.2f} × one. The largest difference of a value is {result['max_abs']:.1e}.",
        "",
        *table(("candidate", "texts per second"), [(name, f"{median(found):,.0f}") for name, found in rates.items()]),
    ]


def recall_rows(result: Mapping[str, Any]) -> list[str]:
    """The lines of the table, which docs/bulk.md has, too."""
    cases = result["cases"]
    headings = ("stored as", *(f"{case['name']}: bytes, recall at {', '.join(DEPTHS)}" for case in cases))
    return table(headings, [(way, *(_cell(case["ways"][way]) for case in cases)) for way in cases[0]["ways"]])


def _cell(way: Mapping[str, Any]) -> str:
    return f"{way['bytes']}: " + ", ".join(f"{way['recall'][depth]:.3f}" for depth in DEPTHS)


def recall_lines(result: Mapping[str, Any]) -> list[str]:
    """Recall of each way to store embeddings."""
    drawn, _, random = result["cases"]
    return [
        "The share of the k nearest rows by float32 that are among the k nearest by the stored rows. "
        f"{drawn['rows']:,} images of shapes and digits embedded by {result['bundle']} ({drawn['dim']} components), "
        f"searched by {drawn['queries']} other images and by captions; and {random['rows']:,} random directions of "
        f"{random['dim']} components, which have no structure to help. PCA is fitted on the rows that are searched.",
        "",
        *recall_rows(result),
    ]


THROUGHPUT = Section("Bulk embedding", "embed", throughput_lines)
RAY = Section("Ray Data", "ray", ray_lines)
RECALL = Section("Recall of stored embeddings", "dtypes", recall_lines)
