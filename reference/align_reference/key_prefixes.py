"""Keys of a state dict as the model has them: without what wrappers and containers put in front.

``torch.compile`` inserts ``_orig_mod.``, data parallel training ``module.``, wherever a module was wrapped, also in
each other; a training class that holds the model as an attribute puts that attribute's name before every key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeVar

from align_reference.listing import listing, shorten
from align_runtime.errors import CheckpointError

Value = TypeVar("Value")

MAX_PARTS = 32  # of a key, between dots, that are looked at

# What PyTorch inserts for DataParallel and DistributedDataParallel, compile, FSDP, and activation checkpoints. No
# module of ALIGN has such a name.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def without_prefixes(
    weights: Mapping[str, Value], expected: Collection[str], where: str
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """`weights` with the keys of the model, `expected`, as far as only prefixes differ; and a line for each change.

    Raises:
        CheckpointError: two keys would become one.
    """
    renamed, notes = _without_wrappers(weights, where)
    first = next(iter(renamed), "").split(".")[:MAX_PARTS]
    prefixes = ["".join(f"{part}." for part in first[:length]) for length in range(len(first))]
    prefixes = [prefix for prefix in prefixes if all(key.startswith(prefix) for key in renamed)]
    prefix = max(prefixes, key=lambda prefix: sum(key.removeprefix(prefix) in expected for key in renamed), default="")
    if prefix:
        renamed = {key.removeprefix(prefix): value for key, value in renamed.items()}
        notes += (f"removed the prefix {shorten(prefix)} from all {len(renamed)} keys of the weights",)
    return renamed, notes


def prefix_hint(keys: Collection[str], expected: Collection[str]) -> str | None:
    """What to do about `keys` if most would fit the model without a prefix that others do not have; None if not."""
    prefixes = Counter(key.removesuffix(name) for key in keys for name in _endings(key) if name in expected)
    prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
    others = sorted(key for key in keys if not key.startswith(prefix))
    if 2 * count <= len(keys) or not others:
        return None
    return (
        f"{len(keys) - len(others)} keys begin with {shorten(prefix)}, which is only removed where all do; "
        f"{len(others)} do not: {listing(others, 100)}. Save the state dict of the model itself"
    )


def _endings(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(1, min(len(parts), MAX_PARTS))]


def _without_wrappers(weights: Mapping[str, Value], where: str) -> tuple[dict[str, Value], tuple[str, ...]]:
    renamed: dict[str, Value] = {}
    seen: dict[str, None] = {}
    changed = 0
    for key, value in weights.items():
        parts = key.split(".")
        kept = [part for part in parts if part not in WRAPPERS]
        seen |= dict.fromkeys(part for part in parts if part in WRAPPERS)
        changed += len(kept) < len(parts)
        name = ".".join(kept)
        if name in renamed:
            raise CheckpointError(
                f"{where}: the key {shorten(key)} occurs twice, with and without {' and '.join(seen)}; save the state "
                "dict of the model itself"
            )
        renamed[name] = value
    if not changed:
        return renamed, ()
    return renamed, (f"removed {' and '.join(f'{part}.' for part in seen)} from {changed} keys of the weights",)
