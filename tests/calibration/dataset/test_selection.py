"""Drawing samples, skipping some, and noticing that one changed."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from align_calibration.dataset import calibration_dataset
from align_calibration.dataset.calibration_dataset import select_dataset
from align_calibration.dataset.sample_source import Candidate, Skipped
from align_calibration.dataset.selection import Sample, Selection, draw, select_samples
from align_runtime.errors import BuildError, ConfigurationError, InputError
from align_runtime.image_options import DEFAULT_FORMATS, DEFAULT_MAX_PIXELS, ImageOptions
from align_runtime.preprocessing import ImagePreprocessing
from align_runtime.progress import Progress
from align_runtime.tokenizer import Tokenizer
from support.image_configs import TYPICAL
from support.sample_folders import images, write_files, write_tar, write_zip

CANDIDATES = [Candidate(str(number), str(number).encode()) for number in range(1000)]


# ── the draw ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_does_not_matter_and_the_seed_does() -> None:
    drawn, found = draw(CANDIDATES, 50, seed=0)
    assert found == 1000
    assert len(set(drawn)) == 50
    for turn in range(5):
        shuffled = random.Random(turn).sample(CANDIDATES, 1000)
        assert set(draw(shuffled, 50, seed=0)[0]) == set(drawn)
    other, _ = draw(CANDIDATES, 50, seed=1)
    assert len(set(drawn) & set(other)) < 10


def test_all_are_drawn_equally_often() -> None:
    counts = [0] * 20
    for seed in range(400):
        for name in draw(CANDIDATES[:20], 5, seed)[0]:
            counts[int(name)] += 1
    assert all(60 < count < 140 for count in counts)  # 100 on average; 4.6 standard deviations of 8.7


def test_an_identity_is_drawn_once() -> None:
    doubled = [Candidate(f"{number}", b"same") for number in range(10)] + CANDIDATES[:4] * 3
    drawn, found = draw(doubled, 100, seed=0)
    assert found == 22
    assert sorted(drawn) == ["0", "0", "1", "2", "3"]
    assert len(draw(CANDIDATES * 3, 7, seed=0)[0]) == len(set(draw(CANDIDATES * 3, 7, seed=0)[0])) == 7


def test_many_candidates_of_one_identity_are_one() -> None:
    many = (Candidate(str(number), b"same") for number in range(100_000))
    assert draw(many, 10, seed=0) == (["0"], 100_000)


def test_a_small_draw_is_part_of_a_large_one() -> None:
    assert set(draw(CANDIDATES, 10, seed=0)[0]) < set(draw(CANDIDATES, 20, seed=0)[0])


# ── skipped samples ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Fake:
    """A source whose samples contain their own names, except those in `changed`."""

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
    def decode(content: bytes) -> None:
        if content in bad:
            raise InputError("cannot be decoded", 0)

    return decode


def test_a_tenth_may_be_skipped() -> None:
    selection = select_samples(fake(20, bad=2), 100, seed=0)
    assert len(selection.samples) == 18
    assert selection.skipped == (Skipped("s0", "is bad"), Skipped("s1", "is bad"))
    assert selection.available == 20


def test_more_than_a_tenth_skipped_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"fake: 3 of 20 samples .*10%.*'s0': is bad"):
        select_samples(fake(20, bad=3), 100, seed=0)


def test_the_message_shortens_a_long_name() -> None:
    source = Fake(["x" * 900], {"x" * 900: Skipped("x" * 900, "is bad")})
    with pytest.raises(ConfigurationError) as error:
        select_samples(source, 100, seed=0)
    assert len(str(error.value)) <= 500


def test_unreadable_and_undecodable_samples_add_up() -> None:
    selection = select_samples(fake(20, bad=1), 100, seed=0)
    decodable = selection.decodable(selection.contents(), refusing(b"s7"))
    assert len(decodable.samples) == 18
    assert decodable.skipped == (Skipped("s0", "is bad"), Skipped("s7", "cannot be decoded"))
    with pytest.raises(ConfigurationError, match="3 of 20 samples"):
        selection.decodable(selection.contents(), refusing(b"s7", b"s8"))


def test_an_empty_source_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="fake contains no samples"):
        select_samples(fake(0), 100, seed=0)


@pytest.mark.parametrize("now", [b"another", Skipped("s3", "is gone")])
def test_a_sample_that_changes_is_an_error(now: bytes | Skipped) -> None:
    source = fake(5)
    source.names.reverse()
    selection = select_samples(source, 100, seed=0)
    assert [content for _, content in selection.contents()] == [b"s4", b"s3", b"s2", b"s1", b"s0"]
    source.changed["s3"] = now
    with pytest.raises(BuildError, match="fake: sample 's3' changed"):
        list(selection.contents())


def test_a_sample_that_disappears_is_an_error() -> None:
    source = fake(5)
    selection = select_samples(source, 100, seed=0)
    source.names.remove("s4")
    with pytest.raises(BuildError, match="fake: sample 's4' changed"):
        list(selection.contents())


# ── the dataset ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_draw_depends_on_names_and_not_on_the_format(tmp_path: Path) -> None:
    files = images(40)
    selections = [
        select_dataset(path, None, 10, 3).images
        for path in (
            write_files(tmp_path / "photos", files),
            write_zip(tmp_path / "a.zip", dict(reversed(files.items()))),
            write_tar(tmp_path / "a.tgz", dict(reversed(files.items()))),
        )
    ]
    first, *others = [set(selection.samples) for selection in selections if selection is not None]
    assert len(first) == 10
    assert others == [first, first]


def test_the_summary_covers_the_samples_and_the_draw(tmp_path: Path) -> None:
    files = images(12)
    folder = write_files(tmp_path / "photos", files)
    captions = tmp_path / "c.txt"
    captions.write_text("a cat\na dog\n")

    def summary(limit: int = 20, seed: int = 0, *, texts: bool = True) -> object:
        return select_dataset(folder, captions if texts else None, limit, seed).summary

    first = summary()
    assert first == summary()
    assert str(tmp_path) not in str(first)
    differing = [summary(limit=21), summary(limit=11), summary(seed=1), summary(texts=False)]
    (folder / "0" / "000.png").write_bytes(files["1/001.png"])
    differing.append(summary())
    captions.write_text("a cat\na cow\n")
    differing.append(summary())
    assert len({str(entry) for entry in [first, *differing]}) == 7


def test_names_that_are_not_utf8_do_not_keep_a_manifest_from_being_written(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xff\x1b"))
    write_files(folder, images(3))
    summary = select_dataset(folder, None, 20, 0).summary
    assert summary["calibration_images"] == r"caf\udcff\x1b"


def test_a_sample_that_is_not_drawn_has_no_effect(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", images(12))
    before = select_dataset(folder, None, 3, 0)
    assert before.images is not None
    drawn = {sample.name for sample in before.images.samples}
    left = next(name for name in images(12) if name not in drawn)
    (folder / left).unlink()
    assert select_dataset(folder, None, 3, 0).summary == before.summary


def test_samples_are_decoded_one_by_one(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = json.loads((tiny_checkpoint / "preprocessor_config.json").read_text())
    preprocessing = ImagePreprocessing.from_hub(processor, "preprocessor_config.json")
    tokenizer = Tokenizer.from_file(tiny_checkpoint / "tokenizer.json", 64, 0)
    (tmp_path / "c.txt").write_text("a photo of a green heart\na cat\n")
    dataset = select_dataset(write_files(tmp_path / "photos", images(4)), tmp_path / "c.txt", 10, 0)
    dataset = dataset.decodable(preprocessing, tokenizer, Progress(quiet=True))
    decoded: list[int] = []
    real = calibration_dataset.preprocess
    monkeypatch.setattr(calibration_dataset, "preprocess", lambda *given: decoded.append(1) or real(*given))
    batches = dataset.image_batches(preprocessing)
    assert next(batches).shape == (1, *preprocessing.output_size, 3)
    assert len(decoded) == 1
    assert len(list(batches)) == 3
    texts = list(dataset.caption_batches(tokenizer))
    assert all(batch["attention_mask"].all() and len(batch["input_ids"]) == 1 for batch in texts)
    assert len(texts) == 2


def test_a_selection_records_no_data(tmp_path: Path) -> None:
    selection = Selection(fake(2), 2, (Sample("s0", "0" * 64),), (Skipped("s1", "is bad"),))
    assert selection.to_json() == {
        "source": "fake",
        "samples": [{"name": "s0", "sha256": "0" * 64}],
        "skipped": [{"name": "s1", "reason": "is bad"}],
    }


def test_images_are_decoded_as_the_options_say(tmp_path: Path) -> None:
    """And what they say is recorded, since it decides about the ranges."""
    clear = io.BytesIO()
    Image.new("RGBA", (30, 30), (200, 30, 90, 0)).save(clear, "PNG")
    folder = write_files(tmp_path / "photos", {"clear.png": clear.getvalue()})
    dropped = select_dataset(folder, None, 10, 0)
    white = select_dataset(folder, None, 10, 0, ImageOptions(alpha="white"))
    assert [next(dataset.image_batches(TYPICAL))[0, 5, 5].tolist() for dataset in (dropped, white)] == [
        [200, 30, 90],
        [255, 255, 255],
    ]
    assert white.to_json()["image_options"] == {
        "alpha": "white",
        "formats": DEFAULT_FORMATS,
        "max_pixels": DEFAULT_MAX_PIXELS,
    }
    assert white.summary["calibration_sha256"] != dropped.summary["calibration_sha256"]
