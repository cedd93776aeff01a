"""A short replay of what `make fuzz` does for minutes: valid inputs, inputs that once failed, and mutations."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from attacks.fuzzing.targets import Target, open_targets

CORPUS = Path(__file__).parent / "corpus"
NAMES = ("manifest", "tokenizer", "image", "tar", "zip", "graph", "golden", "tuning")
MUTATIONS = 300
SECONDS = 10.0  # for one input; the slowest takes 0.2


@pytest.fixture(scope="module")
def targets(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return open_targets(tiny_bundle, tmp_path_factory.mktemp("fuzzing"))


def test_every_target_is_replayed(targets: dict[str, Target]) -> None:
    assert tuple(targets) == NAMES
    assert {folder.name for folder in CORPUS.iterdir()} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_valid_inputs_are_read(targets: dict[str, Target], name: str) -> None:
    assert targets[name].seeds
    for seed in targets[name].seeds:
        assert targets[name].check(seed)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_inputs_that_once_failed_are_refused(targets: dict[str, Target], path: Path) -> None:
    assert not targets[path.parent.name].check(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_mutations_are_read_or_refused(targets: dict[str, Target], name: str) -> None:
    target, random = targets[name], Random(name)
    refused = 0
    for _ in range(MUTATIONS):
        data = target.mutate(random.choice(target.seeds), random)
        start = time.monotonic()
        refused += not target.check(data)
        assert time.monotonic() - start < SECONDS, f"slow: {data[:200]!r}"
    assert refused  # otherwise nothing was tried


def test_a_fault_is_seen() -> None:
    def read(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        Target(read, (b"",)).check(b"")
