"""Archives and lists from a stranger: an end, a bound on what is kept, and an error that names archive and member."""

from __future__ import annotations

import gzip
import os
import time
import zipfile
from pathlib import Path

import pytest

from align_calibration.dataset.calibration_dataset import open_images
from align_calibration.dataset.caption_files import CaptionFile, open_captions
from align_calibration.dataset.sample_source import Skipped
from align_calibration.dataset.selection import select_samples
from align_runtime.archives import opened, tar_reader
from align_runtime.errors import ConfigurationError
from support import hostile_archives as hostile
from support.bounded_runs import cost_of
from support.sample_folders import image

FIRST = hostile.member(b"first.png", image(1))
END = bytes(1024)


def read(path: Path) -> dict[str, bytes | Skipped]:
    source = open_images(path)
    return dict(source.read({candidate.name for candidate in source.candidates()}))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


TARS = {
    "size below zero": (hostile.header(b"second.png", -512), r"'second.png' at byte \d+ claims a size of -512 bytes"),
    "size that leads back": (hostile.header(b"second.png", -len(FIRST) - 512), "claims a size of -"),
    "size of an extension": (hostile.header(b"x", -512, b"x"), "claims a size of -512"),
    "size of a long name": (hostile.header(b"x", 1 << 21, b"L"), "'x' at byte .* claims 2097152 bytes"),
    "size of attributes": (hostile.header(b"x", 1 << 31, b"x"), "claims 2147483648 bytes"),
    "size in attributes": (hostile.attributes((b"size", b"-512")) + hostile.header(b"b.png"), "'b.png' at byte"),
    "huge size in attributes": (hostile.attributes((b"size", b"9" * 5000)) + hostile.header(b"b.png"), "size of None"),
    "size of 2^70": (hostile.header(b"second.png", 1 << 70), "claims a size of 1180591620717411303424"),
    "size that is no number": (hostile.header(b"second.png", b"elephant    "), "'second.png' .* a size of None"),
    "attributes of nothing": (hostile.member(b"x", b"0 a=b\n", b"x"), "malformed record"),
    "attributes that go on": (hostile.member(b"x", b"99 a=b\n", b"x"), "malformed record"),
    "attributes of words": (hostile.member(b"x", b"many a=b\n", b"x"), "malformed record"),
    "name of a megabyte": (
        hostile.attributes((b"path", b"a" * 100_000 + b".png")) + hostile.header(),
        "has 100004 characters; expected at most 4096",
    ),
    "sparse map without an end": (
        (hostile.header(kind=b"S")[:482] + b"\x01").ljust(512, b"\x00"),
        "no header at byte",
    ),
    "end in a member": (hostile.header(b"second.png", 4096), "it ends at byte .* before the end of a member"),
}


@pytest.mark.parametrize("name", TARS)
def test_headers_of_tar(name: str, tmp_path: Path) -> None:
    header, message = TARS[name]
    end = b"" if name == "end in a member" else END
    for file, content in (("a.tar", FIRST + header + end), ("a.tgz", gzip.compress(FIRST + header + end))):
        path = written(tmp_path / file, content)
        with pytest.raises(ConfigurationError, match=rf"cannot read the archive .*{file}: .*{message}"):
            read(path)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    """Links, devices, FIFOs, folders, attributes for all, and files without their holes."""
    others = b"".join(hostile.header(b"b.png", 1 << 20, kind) for kind in (b"1", b"2", b"3", b"4", b"5", b"6"))
    others += hostile.member(b"g", hostile.record(b"size", b"-1"), b"g") + hostile.member(b"K", b"x" * 600, b"K")
    others += hostile.member(b"volume", b"x" * 600, b"M")
    sparse = hostile.attributes((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"c.png"))
    sparse += hostile.member(b"GNUSparseFile/c.png", b"x" * 600)
    path = written(tmp_path / "a.tar", others + FIRST + sparse + hostile.member(b"d.png", image(2)) + END)
    reason = "it is stored sparse; create the archive without --sparse"
    assert read(path) == {"first.png": image(1), "c.png": Skipped("c.png", reason), "d.png": image(2)}


def test_names_of_every_form(tmp_path: Path) -> None:
    long, other = "n" * 200 + ".png", "m" * 200 + ".png"
    names = hostile.attributes((b"path", long.encode()), (b"comment", b"a\nb=c")) + hostile.member(b"short", image(1))
    names += hostile.member(b"././@LongLink", other.encode() + b"\x00", b"L")
    names += hostile.member(b"short", image(2)) + hostile.member(b"plain.png", image(3))
    assert read(written(tmp_path / "a.tar", names + END)) == {
        long: image(1),
        other: image(2),
        "plain.png": image(3),
    }


def test_the_number_of_headers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "MAX_HEADERS", 100)
    for kind in (b"0", b"x", b"g", b"L"):
        path = written(tmp_path / "a.tar", hostile.header(b"a.txt", 0, kind) * 101)
        with pytest.raises(ConfigurationError, match=r"a\.tar: it has more than 100 headers"):
            read(path)


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_decompressed_bytes_are_bounded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "FREE_EXPANSION", 1 << 20)
    path = tmp_path / name
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for index in range(30):
                archive.writestr(f"{index}.png", bytes(1 << 20))
    else:
        written(path, gzip.compress(hostile.header(b"a.bin", 1 << 25) + bytes(1 << 25) + END))
    with pytest.raises(ConfigurationError, match=rf"{name}: it decompresses to more than \d+ bytes, 100 times"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_zip_gives_no_more_than_it_claims(method: int, tmp_path: Path) -> None:
    """The directory says 1000 bytes; 64 MiB lie behind it."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("a.png", "w") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    cost = cost_of(
        "from pathlib import Path; from align_calibration.dataset.calibration_dataset import open_images",
        f"print(dict(open_images(Path({str(path)!r})).read({{'a.png'}})))",
    )
    assert "Skipped(name='a.png', reason=\"it cannot be read from the archive: Bad CRC-32" in cost.output
    assert cost.mebibytes < 100


def test_the_directory_of_zip_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "MAX_DIRECTORY_BYTES", 50_000)
    path = written(tmp_path / "a.zip", hostile.empty_directory(1000))
    with pytest.raises(ConfigurationError, match=r"a\.zip: its directory has 51000 bytes; expected at most 50000"):
        read(path)
    (skipped,) = read(written(tmp_path / "b.zip", hostile.empty_directory(900))).values()
    assert isinstance(skipped, Skipped)


def test_names_in_zip_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a" * 60_000 + ".png", b"x")
    with pytest.raises(ConfigurationError, match=r"a\.zip: the name 'aaa.*… has 60004 characters"):
        read(path)


def test_control_characters_are_not_printed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", hostile.header(b"\x1b[2J\xe2\x80\xae.png", -512))
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    assert "\\x1b[2J" in str(caught.value)
    assert str(caught.value).isprintable()


# ── lists and captions ───────────────────────────────────────────────────────────────────────────────────────────────


def test_files_that_block_are_no_sources(tmp_path: Path) -> None:
    for name in ("a.txt", "a.zip", "a.tar"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ConfigurationError, match="is not a file"):
            open_images(tmp_path / name)
    with pytest.raises(ConfigurationError, match="is not a file"):
        open_captions(tmp_path / "a.txt")
    with pytest.raises(ConfigurationError, match=r"a\.txt is not a regular file"):  # it took the place of one
        list(CaptionFile(tmp_path / "a.txt").candidates())


def test_a_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, 10 << 30)  # sparse: 10 GiB of NUL characters
    start = time.monotonic()
    for source in (open_images(path), open_captions(path)):
        with pytest.raises(ConfigurationError, match="line 1 has more than 8388608 bytes"):
            list(source.candidates())
    assert time.monotonic() - start < 10


def test_a_list_of_what_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"\x00.png\n../../../../dev/zero\n" + b"n" * 5000 + b".png\n")
    with pytest.raises(ConfigurationError, match="3 of 3 samples cannot be used") as caught:
        select_samples(open_images(path), 10, 0)
    assert str(tmp_path) not in str(caught.value)
