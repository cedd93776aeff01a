"""Which samples are taken: a draw that depends on the samples and the seed, not on the order they are found in."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from align_calibration.dataset.source import Candidate


def choose(candidates: Iterable[Candidate], limit: int, seed: int) -> tuple[list[str], int]:
    """Draws `limit` of `candidates`, or all where they are fewer, no identity twice.

    Memory is that of what is drawn. Of a source that grows, what was drawn before stays unless a new one displaces it.

    Returns:
        The names of those drawn, and how many candidates there were.
    """
    drawn: dict[int, str] = {}
    largest: list[int] = []  # the keys of `drawn`, negative: the largest is the first of the heap
    found = 0
    for candidate in candidates:
        found += 1
        key = int.from_bytes(hashlib.sha256(f"{seed}:".encode() + candidate.identity).digest())
        if key in drawn or (len(drawn) == limit and key > -largest[0]):
            continue
        drawn[key] = candidate.name
        heapq.heappush(largest, -key)
        if len(drawn) > limit:
            del drawn[-heapq.heappop(largest)]
    return list(drawn.values()), found
