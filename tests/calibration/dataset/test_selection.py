"""The draw, what is left out of it, and what changes under it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from align_calibration.dataset import calibration_dataset as own_samples
from align_calibration.dataset.calibration_dataset import choose_samples
from align_calibration.dataset.choice import choose
from align_calibration.dataset.selection import Sample, Selection, select
from align_calibration.dataset.source import Candidate, Skipped
from align_runtime.bundle import Bundle
from align_runtime.console import Progress
from align_runtime.errors import BuildError, ConfigurationError, InputError
from align_runtime.tokenizer import Tokenizer
from support.sample_folders import images, write_files, write_tar, write_zip

CANDIDATES = [Candidate(str(number), str(number).encode()) for number in range(1000)]


# ── the draw ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_does_not_matter_and_the_seed_does() -> None:
    drawn, found = choose(CANDIDATES, 50, seed=0)
    assert found == 1000
    assert len(set(drawn)) == 50
    for turn in range(5):
        shuffled = random.Random(turn).sample(CANDIDATES, 1000)
        assert set(choose(shuffled, 50, seed=0)[0]) == set(drawn)
    other, _ = choose(CANDIDATES, 50, seed=1)
    assert len(set(drawn) & set(other)) < 10


def test_all_are_drawn_alike() -> None:
    counts = [0] * 20
    for seed in range(400):
        for name in choose(CANDIDATES[:20], 5, seed)[0]:
            counts[int(name)] += 1
    assert all(60 < count < 140 for count in counts)  # 100 on average, 4.6 standard deviations of 8.7


def test_one_identity_is_drawn_once() -> None:
    doubled = [Candidate(f"{number}", b"same") for number in range(10)] + CANDIDATES[:4] * 3
    drawn, found = choose(doubled, 100, seed=0)
    assert found == 22
    assert sorted(drawn) == ["0", "0", "1", "2", "3"]
    assert len(choose(CANDIDATES * 3, 7, seed=0)[0]) == len(set(choose(CANDIDATES * 3, 7, seed=0)[0])) == 7


def test_a_small_draw_is_part_of_a_large_one() -> None:
    assert set(choose(CANDIDATES, 10, seed=0)[0]) < set(choose(CANDIDATES, 20, seed=0)[0])


# ── what cannot be used ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Fake:
    """A source whose samples are their own names, but for those that are said to be otherwise."""

    names: list[str]
    changed: dict[str, bytes | Skipped]
    name: str = "fake"

    def candidates(self) -> Iterator[Candidate]:
        return (Candidate(name, name.encode()) for name in self.names)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        return ((name, self.changed.get(name, name.encode())) for name in self.names if name in names)


def fake(count: int, bad: int = 0) -> Fake:
    names = [f"s{number}" for number in range(count)]
    return Fake(names, {name: Skipped(name, "is bad") for name in names[:bad]})


def refusing(*bad: bytes) -> object:
    def attempt(content: bytes) -> None:
        if content in bad:
            raise InputError("cannot be decoded", 0)

    return attempt


def test_a_tenth_may_be_bad_and_is_named() -> None:
    selection = select(fake(20, bad=2), 100, seed=0)
    assert len(selection.used) == 18
    assert selection.skipped == (Skipped("s0", "is bad"), Skipped("s1", "is bad"))
    assert selection.found == 20


def test_more_than_a_tenth_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"fake: 3 of 20 samples cannot be used, at most 10% .*'s0': is bad"):
        select(fake(20, bad=3), 100, seed=0)


def test_what_cannot_be_read_and_what_cannot_be_decoded_add_up() -> None:
    selection = select(fake(20, bad=1), 100, seed=0)
    usable = selection.usable(selection.contents(), refusing(b"s7"))
    assert len(usable.used) == 18
    assert usable.skipped == (Skipped("s0", "is bad"), Skipped("s7", "cannot be decoded"))
    with pytest.raises(ConfigurationError, match="3 of 20 samples cannot be used"):
        selection.usable(selection.contents(), refusing(b"s7", b"s8"))


def test_nothing_at_all_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="fake holds no samples"):
        select(fake(0), 100, seed=0)


@pytest.mark.parametrize("now", [b"another", Skipped("s3", "is gone")])
def test_a_sample_that_changes_meanwhile_is_an_error(now: bytes | Skipped) -> None:
    source = fake(5)
    source.names.reverse()
    selection = select(source, 100, seed=0)
    assert [content for _, content in selection.contents()] == [b"s4", b"s3", b"s2", b"s1", b"s0"]
    source.changed["s3"] = now
    with pytest.raises(BuildError, match="fake: 's3' changed while the export was running"):
        list(selection.contents())


def test_a_sample_that_disappears_meanwhile_is_an_error() -> None:
    source = fake(5)
    selection = select(source, 100, seed=0)
    source.names.remove("s4")
    with pytest.raises(BuildError, match="fake: 's4' changed"):
        list(selection.contents())


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_choice_is_that_of_names_and_not_of_the_form(tmp_path: Path) -> None:
    files = images(40)
    chosen = [
        choose_samples(path, None, 10, 3).images
        for path in (
            write_files(tmp_path / "photos", files),
            write_zip(tmp_path / "a.zip", dict(reversed(files.items()))),
            write_tar(tmp_path / "a.tgz", dict(reversed(files.items()))),
        )
    ]
    first, *others = [set(selection.used) for selection in chosen if selection is not None]
    assert len(first) == 10
    assert others == [first, first]


def test_the_digest_covers_what_was_chosen_and_how(tmp_path: Path) -> None:
    files = images(12)
    folder = write_files(tmp_path / "photos", files)
    captions = tmp_path / "c.txt"
    captions.write_text("a cat\na dog\n")

    def digest(limit: int = 20, seed: int = 0, *, texts: bool = True) -> object:
        return choose_samples(folder, captions if texts else None, limit, seed).summary

    first = digest()
    assert first == digest()
    assert str(tmp_path) not in str(first)
    differing = [digest(limit=21), digest(limit=11), digest(seed=1), digest(texts=False)]
    (folder / "0" / "000.png").write_bytes(files["1/001.png"])
    differing.append(digest())
    captions.write_text("a cat\na cow\n")
    differing.append(digest())
    assert len({str(entry) for entry in [first, *differing]}) == 7


def test_a_sample_that_is_not_drawn_does_not_matter(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", images(12))
    before = choose_samples(folder, None, 3, 0)
    assert before.images is not None
    used = {entry.name for entry in before.images.used}
    left = next(name for name in images(12) if name not in used)
    (folder / left).unlink()
    assert choose_samples(folder, None, 3, 0).summary == before.summary


def test_batches_are_made_one_by_one(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle)
    preprocessing, facts = bundle.manifest.preprocessing, bundle.manifest.model
    tokenizer = Tokenizer.from_file(tiny_bundle / "tokenizer.json", facts.max_length, facts.pad_token_id)
    (tmp_path / "c.txt").write_text("a photo of a green heart\na cat\n")
    own = choose_samples(write_files(tmp_path / "photos", images(4)), tmp_path / "c.txt", 10, 0)
    own = own.usable(preprocessing, tokenizer, Progress(quiet=True))
    decoded: list[int] = []
    real = own_samples.preprocess
    monkeypatch.setattr(own_samples, "preprocess", lambda *given: decoded.append(1) or real(*given))
    batches = own.image_batches(preprocessing)
    assert next(batches).shape == (1, *preprocessing.output_size, 3)
    assert len(decoded) == 1
    assert len(list(batches)) == 3
    texts = list(own.caption_batches(tokenizer))
    assert all(batch["attention_mask"].all() and len(batch["input_ids"]) == 1 for batch in texts)
    assert len(texts) == 2


def test_a_selection_records_no_data(tmp_path: Path) -> None:
    selection = Selection(fake(2), 2, (Sample("s0", "0" * 64),), (Skipped("s1", "is bad"),))
    assert selection.to_json() == {
        "source": "fake",
        "used": [{"name": "s0", "sha256": "0" * 64}],
        "skipped": [{"name": "s1", "reason": "is bad"}],
    }


def test_equal_captions_are_one() -> None:
    """Many equal captions are one."""
    many = (Candidate(str(number), b"same") for number in range(100_000))
    assert choose(many, 10, seed=0) == (["0"], 100_000)
