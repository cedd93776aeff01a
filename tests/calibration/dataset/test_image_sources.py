"""Images from folders, lists and archives: all of them and nothing else, and errors that name the image."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from align_calibration.dataset import image_files
from align_calibration.dataset.calibration_dataset import open_images
from align_calibration.dataset.sample_source import SampleSource, Skipped
from align_calibration.dataset.selection import select_samples
from align_runtime.errors import ConfigurationError
from support.sample_folders import image, images, write_files, write_list, write_tar, write_zip

FILES = images(5)
NOT_REGULAR = "it is not a regular file; expected one, or a link to one"
HOSTILE = {"../../escaped.png": image(1), "/etc/absolute.png": image(2), "C:\\windows.png": image(3)}


def read_all(source: SampleSource) -> dict[str, bytes | Skipped]:
    return dict(source.read({candidate.name for candidate in source.candidates()}))


@pytest.fixture(params=["folder", "list.txt", "a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """FILES in every format, among other files."""
    others = {"notes.md": b"# notes", "0/._000.png": b"of another system", ".hidden.png": b"", ".thumbs/x.png": b"x"}
    name: str = request.param
    if name.endswith(".zip"):
        return write_zip(tmp_path / name, others | FILES)
    if ".t" in name and not name.endswith(".txt"):
        return write_tar(tmp_path / name, others | FILES)
    folder = write_files(tmp_path / "photos", others | FILES)
    if name == "folder":
        return folder
    return write_list(folder / name, ["", *FILES, f"./{next(iter(FILES))}"])


def test_every_format_gives_the_same_images(path: Path) -> None:
    source = open_images(path)
    assert source.name == path.name
    assert read_all(source) == FILES
    assert dict(source.read({"1/001.png"})) == {"1/001.png": FILES["1/001.png"]}


def test_reading_twice_gives_the_same_order(path: Path) -> None:
    source = open_images(path)
    assert list(source.read(FILES.keys())) == list(source.read(FILES.keys()))


def test_a_relative_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_files(tmp_path / "photos", FILES))
    assert open_images(Path()).name == "photos"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_hostile_names_are_read_and_never_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "one" / "two"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    write = write_zip if name.endswith("zip") else write_tar
    assert read_all(open_images(write(inside / name, HOSTILE))) == HOSTILE
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [inside / name]


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"link{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert read_all(open_images(path)) == FILES


@pytest.mark.parametrize("name", ["photos", "a.zip", "a.tar", "a.tgz"])
def test_sizes_are_bounded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_BYTES", 4096)
    files = {"bomb.png": bytes(1 << 20)} | FILES
    write = {"photos": write_files, "a.zip": write_zip}.get(name, write_tar)
    read = read_all(open_images(write(tmp_path / name, files)))
    assert read.pop("bomb.png") == Skipped("bomb.png", f"it has {1 << 20} bytes; expected at most 4096")
    assert read == FILES


def test_a_header_that_claims_gigabytes_is_an_error(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1 << 16)))
    with pytest.raises(ConfigurationError, match=r"a\.tgz: .*pax.* 4294967296 bytes"):
        read_all(open_images(path))


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────────────────────────


def test_files_that_cannot_be_read_are_skipped_by_name(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", FILES)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere")
    read = read_all(open_images(folder))
    assert {name: read[name] for name in FILES} == FILES
    assert read["pipe.png"] == Skipped("pipe.png", NOT_REGULAR)
    assert read["dangling.png"] == Skipped("dangling.png", "it is a link to a file that does not exist; fetch it again")
    assert len(read) == len(FILES) + 2


def test_missing_files_of_a_list_are_skipped_by_name(tmp_path: Path) -> None:
    write_files(tmp_path / "photos", FILES)
    path = write_list(tmp_path / "lists" / "list.txt", ["../photos/0/000.png", "gone.png", "nul\0.png", "../photos"])
    assert read_all(open_images(path)) == {
        "../photos/0/000.png": FILES["0/000.png"],
        "../photos": Skipped("../photos", NOT_REGULAR),
        "gone.png": Skipped("gone.png", "it does not exist"),
        "nul\0.png": Skipped("nul\0.png", "it cannot be read: embedded null byte"),
    }


def test_damaged_and_encrypted_members_of_a_zip_are_skipped_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    content = bytearray(path.read_bytes())
    content[content.index(FILES["1/001.png"]) + 50] ^= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the last one: encrypted
    path.write_bytes(content)
    read = read_all(open_images(path))
    reason = "it cannot be read from the archive: Bad CRC-32 for file '1/001.png'"
    assert read["1/001.png"] == Skipped("1/001.png", reason)
    last = read["1/004.png"]
    assert isinstance(last, Skipped)
    assert "password required" in last.reason
    assert sum(isinstance(entry, Skipped) for entry in read.values()) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_compressed_zip_is_skipped_by_name(method: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        start = archive.getinfo("1/001.png").header_offset
    content = bytearray(path.read_bytes())
    begin = start + 30 + len("1/001.png") + 12  # behind the local header and LZMA's own
    content[begin : begin + 40] = bytes(byte ^ 0xFF for byte in content[begin : begin + 40])
    path.write_bytes(content)
    (skipped,) = [entry for entry in read_all(open_images(path)).values() if isinstance(entry, Skipped)]
    assert skipped.name == "1/001.png"
    assert skipped.reason.startswith("it cannot be read from the archive: ")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 3]


def damaged_header(content: bytes) -> bytes:
    plain = bytearray(content)
    plain[plain.index(b"0/003.png")] ^= 1  # the checksum of the header is wrong now
    return bytes(plain)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("a.zip", cut),
        ("a.tar", cut),
        ("a.tgz", cut),
        ("a.tar", damaged_header),
        ("a.tar", lambda content: b"not an archive at all"),
        ("a.tgz", lambda content: b""),
        ("a.tgz", lambda content: content[:400] + bytes(100) + content[500:]),
    ],
)
def test_a_damaged_archive_is_an_error(name: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, FILES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigurationError, match=rf"cannot read the archive .*{name}: "):
        read_all(open_images(path))


def test_a_tar_without_an_end_marker_is_complete(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    path.write_bytes(path.read_bytes().rstrip(b"\0") + bytes(1))
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    padded = (last.offset_data + last.size + 511) // 512 * 512
    path.write_bytes(path.read_bytes().ljust(padded, b"\0")[:padded])
    assert read_all(open_images(path)) == FILES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "missing does not exist"),
        ("cat.png", image(1), r"cat\.png is not a set of images"),
        ("a.tar.xz", b"", r"a\.tar\.xz is not a set"),
        ("list.txt", "ä.png\n".encode("latin-1"), r"list\.txt, line 1 is not UTF-8"),
        ("list.txt", b"a.png\n/home/me/b.png\n", r"list\.txt, line 2 is an absolute path"),
        ("list.txt", bytes(9 << 20), r"list\.txt, line 1 has more than 8388608 bytes"),
    ],
)
def test_other_paths_are_an_error(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as error:
        list(open_images(tmp_path / name).candidates())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 500


def test_a_folder_that_cannot_be_searched_is_an_error(tmp_path: Path) -> None:
    """And not a smaller dataset. Root may search every folder, so this one is missing."""
    source = open_images(write_files(tmp_path / "photos", FILES))
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="photos for images: No such file"):
        list(source.candidates())


def test_a_tar_is_read_in_its_own_order(tmp_path: Path) -> None:
    """A step back in a compressed archive would decompress it again."""
    backwards = dict(reversed(FILES.items()))
    source = open_images(write_tar(tmp_path / "a.tgz", backwards))
    assert [name for name, _ in source.read(FILES.keys())] == list(backwards)


def test_of_members_with_the_same_name_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for seed in (1, 2):
            member = tarfile.TarInfo("a.png")
            member.size = len(image(seed))
            archive.addfile(member, io.BytesIO(image(seed)))
    assert list(open_images(path).read({"a.png"})) == [("a.png", image(1))]


@pytest.mark.parametrize("name", ["photos", "a.tar"])
def test_names_that_are_not_unicode_are_accepted(name: str, tmp_path: Path) -> None:
    files = {"caf\udce9.png": image(1)}
    source = open_images((write_files if name == "photos" else write_tar)(tmp_path / name, files))
    assert read_all(source) == files
    selection = select_samples(source, 5, seed=0)
    assert json.loads(json.dumps(selection.to_json()))["samples"][0]["name"] == "caf\udce9.png"


def test_a_missing_member_is_left_out(tmp_path: Path) -> None:
    source = open_images(write_zip(tmp_path / "a.zip", FILES))
    assert dict(source.read([*FILES, "gone.png"])) == FILES
