"""What is fuzzed: each reader of files that a stranger may have written, with valid inputs to start from.

A reader may answer, or refuse with an `AlignError` whose message is one printable line. Anything else is a fault.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from align_calibration.dataset.calibration_dataset import open_images
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.commands import inspect
from align_runtime.errors import MAX_MESSAGE, AlignError
from align_runtime.graph_file import check_graph_file
from align_runtime.images import preprocess
from align_runtime.machine_key import MachineKey
from align_runtime.tokenizer import Tokenizer
from align_runtime.tower_settings import TowerSettings
from align_runtime.tuning import TunedTower, TuningEntry, add_entry, read_tuning
from attacks.fuzzing.mutations import mutate_bytes, mutate_json

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Target:
    """A reader to fuzz.

    Attributes:
        read: reads an input; what it may raise is `AlignError`.
        seeds: valid inputs.
        mutate: makes another input of one.
    """

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    mutate: Callable[[bytes, Random], bytes] = mutate_bytes

    def check(self, data: bytes) -> bool:
        """Whether `data` is read; False if it is refused as it should be.

        Raises:
            Exception: the fault that was found.
        """
        try:
            self.read(data)
        except AlignError as error:
            message = str(error)
            assert message.isprintable(), f"message with control characters: {message!r}"
            assert 0 < len(message) <= MAX_MESSAGE, f"message of {len(message)} characters"
            return False
        return True


def open_targets(bundle: Path, folder: Path) -> dict[str, Target]:
    """All targets by name. `folder` is an empty one for their files, best in memory."""
    copy = folder / "bundle"
    shutil.copytree(bundle, copy)
    opened = Bundle.open(bundle)
    facts, preprocessing = opened.manifest.model, opened.manifest.preprocessing

    def read_bundle(data: bytes) -> None:
        (copy / "align.json").write_bytes(data)
        Bundle.open(copy)
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            inspect.main([str(copy)])
        assert all(line.isprintable() for line in printed.getvalue().splitlines()), printed.getvalue()

    def read_tokenizer(data: bytes) -> None:
        path = _written(folder / "tokenizer.json", data)
        tokenizer = Tokenizer.from_file(path, facts.max_length, facts.pad_token_id)
        tokenizer.pad(tokenizer.encode(["a photo of a cat", "", "ÄÖ 猫 \U0001f600 " * 50, "[MASK] [CLS]"]))

    def read_image(data: bytes) -> None:
        preprocess([data], preprocessing)

    def read_archive(suffix: str) -> Callable[[bytes], None]:
        def read(data: bytes) -> None:
            images = open_images(_written(folder / f"archive{suffix}", data))
            names = {candidate.name for candidate in images.candidates()}
            assert sum(1 for _ in images.read(names)) <= len(names)

        return read

    def read_graph(data: bytes) -> None:
        check_graph_file(_written(folder / "text_model.onnx", data), "text_model.onnx_data")

    def read_array(data: bytes) -> None:
        golden.read_array(_written(folder / "array.npy", data), np.dtype(np.float32), 2)

    machine = MachineKey.here()

    def read_settings(data: bytes) -> None:
        for entry in read_tuning(_written(folder / "tuning.json", data)):
            entry.machine.differences(machine)
            assert all(str(tower.settings).isprintable() for tower in entry.towers.values())

    return {
        "manifest": Target(read_bundle, ((bundle / "align.json").read_bytes(),), mutate_json),
        "tokenizer": Target(read_tokenizer, (_small_tokenizer(bundle),), mutate_json),
        "image": Target(read_image, tuple(_images())),
        "tar": Target(read_archive(".tar"), tuple(_tars())),
        "zip": Target(read_archive(".zip"), tuple(_zips())),
        "graph": Target(read_graph, ((bundle / "onnx" / "text_model.onnx").read_bytes(),)),
        "golden": Target(read_array, tuple(_arrays())),
        "tuning": Target(read_settings, (_settings(folder),), mutate_json),
    }


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _small_tokenizer(bundle: Path) -> bytes:
    """The tokenizer of `bundle` with a vocabulary of 300: an input of 30 kB is mutated faster than one of 700."""
    values = json.loads((bundle / "tokenizer.json").read_bytes())
    kept = sorted(values["model"]["vocab"].items(), key=lambda item: item[1])[:300]
    values["model"]["vocab"] = dict(kept)
    return json.dumps(values, ensure_ascii=False).encode()


def _settings(folder: Path) -> bytes:
    """A file of measured settings for two targets."""
    file = folder / "seed.json"
    for target, settings in (("latency", TowerSettings(threads=1)), ("throughput", TowerSettings(batch_size=8))):
        tower = TunedTower(settings, 0.99, 1.0, "golden", 1.0, 1.5, 1.4, 1.6, "2026-11-27T12:00:00+00:00")
        add_entry(
            file, TuningEntry(MachineKey.here(), target, "align-tiny", "0" * 64, {"vision": tower, "text": tower})
        )
    return file.read_bytes()


def _images() -> Iterable[bytes]:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    clear = image.convert("RGBA")
    for name in IMAGE_FORMATS:
        for version in (image, image.convert("P"), image.convert("L"), image.convert("1"), clear):
            file = io.BytesIO()
            try:
                version.save(file, name, **({"progressive": True} if name == "JPEG" else {}))
            except OSError:  # the format has no such mode
                continue
            yield file.getvalue()
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        file = io.BytesIO()
        image.save(file, "TIFF", compression=compression)
        yield file.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    yield file.getvalue()


def _tars() -> Iterable[bytes]:
    for style in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        for mode in ("w", "w:gz"):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode=mode, format=style) as archive:
                for name in ("a.png", "b/c.jpg", "long" * 20 + ".png"):
                    member = tarfile.TarInfo(name)
                    member.size = 700
                    archive.addfile(member, io.BytesIO(bytes(700)))
            yield file.getvalue()


def _zips() -> Iterable[bytes]:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name in ("a.png", "b/c.jpg", "ä.png"):
                archive.writestr(name, bytes(700))
        yield file.getvalue()


def _arrays() -> Iterable[bytes]:
    for array in (np.zeros((2, 3), np.float32), np.zeros((0, 3), np.float32)):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        yield file.getvalue()
