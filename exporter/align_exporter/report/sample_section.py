"""The user's own samples on the page: how many of what were used, and what was skipped."""

from __future__ import annotations

from align_bench.page.components import code, facts, table
from align_bench.page.markup import Markup, element
from align_calibration.dataset.calibration_dataset import SAMPLES_NAME, CalibrationDataset


def own_samples(samples: CalibrationDataset | None) -> list[Markup]:
    """A heading and what follows; nothing where there are none."""
    if samples is None:
        return []
    pairs = [
        (
            kind.capitalize(),
            f"{len(selection.used)} used, {len(selection.skipped)} skipped, of {selection.found} in "
            f"{selection.source.name}",
        )
        for kind, selection in samples.selections.items()
    ]
    pairs.append(("Drawn", f"at most {samples.limit} of each, seed {samples.seed}"))
    skipped = [
        (code(entry.name), kind, entry.reason)
        for kind, selection in samples.selections.items()
        for entry in selection.skipped
    ]
    return [
        element("h3", "Samples of the user’s own"),
        element(
            "p",
            "What FP16 and INT8 graphs need to know of activations was measured on them. Their names and sums are in ",
            element("a", SAMPLES_NAME, href=SAMPLES_NAME),
            ".",
        ),
        facts(pairs),
        *([table("Samples that could not be used", ["Sample", "Kind", "Why"], skipped)] if skipped else []),
    ]
