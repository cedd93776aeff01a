"""Images are taken before the next one is asked for, whatever their owner then does with them."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

import align_runtime
from align_runtime import InputError, Model, golden, image_intake
from align_runtime.image_intake import detach
from align_runtime.image_options import DEFAULT_IMAGES

CLOSE = 1e-5  # images share their batches with others
COUNT, WIDTH, HEIGHT = 9, 200, 150


@pytest.fixture(scope="module", params=[1, 3], ids=["one stream", "three streams"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[Model]:
    with align_runtime.load(tiny_bundle, threads=3, streams=request.param) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def frames(answers: golden.Golden) -> list[Image.Image]:
    """Images that differ, large enough for their decoding to overlap."""
    chosen = [answers.pixels[index % len(answers.pixels)] for index in range(COUNT)]
    turned = [np.rot90(pixels, index // len(answers.pixels)) for index, pixels in enumerate(chosen)]
    return [Image.fromarray(np.ascontiguousarray(pixels)).resize((WIDTH, HEIGHT)) for pixels in turned]


@pytest.fixture(scope="module")
def answered(model: Model, frames: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and embeddings of `frames`, each alone."""
    pixels = np.concatenate([model.preprocess([frame.copy()]) for frame in frames])
    return pixels, np.concatenate([model.embed_pixels(one[None]) for one in pixels])


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def frames_of(kind: str, frames: list[Image.Image], **options: Any) -> Iterator[Image.Image]:
    first, *others = (frame.copy() for frame in frames)  # Pillow keeps options of an earlier `save` in an image
    data = encoded(first, kind, save_all=True, append_images=others, **options)
    yield from ImageSequence.Iterator(Image.open(io.BytesIO(data)))


def tiff_frames(frames: list[Image.Image], folder: Path) -> Iterator[Image.Image]:
    return frames_of("TIFF", frames, compression="tiff_deflate")


def webp_frames(frames: list[Image.Image], folder: Path) -> Iterator[Image.Image]:
    return frames_of("WEBP", frames, lossless=True)


def one_array(frames: list[Image.Image], folder: Path) -> Iterator[np.ndarray]:
    buffer = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for frame in frames:
        buffer[:] = np.asarray(frame)
        yield buffer


def a_view_of_one_array(frames: list[Image.Image], folder: Path) -> Iterator[np.ndarray]:
    for buffer in one_array(frames, folder):
        yield buffer[::-1][::-1]


def a_memory_map(frames: list[Image.Image], folder: Path) -> Iterator[np.ndarray]:
    mapped = np.memmap(folder / "frame", np.uint8, "w+", shape=(HEIGHT, WIDTH, 3))
    for frame in frames:
        mapped[:] = np.asarray(frame)
        yield mapped


def an_image_of_one_array(frames: list[Image.Image], folder: Path) -> Iterator[Image.Image]:
    buffer = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    shared = Image.frombuffer("RGBA", (WIDTH, HEIGHT), buffer, "raw", "RGBA", 0, 1)
    for frame in frames:
        buffer[:] = np.asarray(frame.convert("RGBA"))
        yield shared


def one_image_pasted_over(frames: list[Image.Image], folder: Path) -> Iterator[Image.Image]:
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    for frame in frames:
        canvas.paste(frame)
        yield canvas
        ImageDraw.Draw(canvas).rectangle((0, 0, WIDTH, HEIGHT), fill="red")


def one_bytearray(frames: list[Image.Image], folder: Path) -> Iterator[bytearray]:
    buffer = bytearray()
    for frame in frames:
        buffer[:] = encoded(frame)
        yield buffer
        buffer[:] = b"x" * len(buffer)


def one_memoryview(frames: list[Image.Image], folder: Path) -> Iterator[memoryview]:
    buffer = bytearray(1 << 20)
    for frame in frames:
        data = encoded(frame)
        buffer[: len(data)] = data
        with memoryview(buffer)[: len(data)] as view:
            yield view


def one_file_object(frames: list[Image.Image], folder: Path) -> Iterator[io.BytesIO]:
    file = io.BytesIO()
    for frame in frames:
        file.seek(0)
        file.truncate()
        file.write(encoded(frame))
        file.seek(0)
        yield file


def an_open_file_that_ends_with_its_turn(frames: list[Image.Image], folder: Path) -> Iterator[Any]:
    for frame in frames:
        (folder / "frame.png").write_bytes(encoded(frame))
        with (folder / "frame.png").open("rb") as file:
            yield file


def one_path_written_over(frames: list[Image.Image], folder: Path) -> Iterator[str]:
    for frame in frames:
        (folder / "frame.png").write_bytes(encoded(frame))
        yield str(folder / "frame.png")


def files_deleted_after_their_turn(frames: list[Image.Image], folder: Path) -> Iterator[Path]:
    for index, frame in enumerate(frames):
        file = folder / f"{index}.png"
        file.write_bytes(encoded(frame))
        yield file
        file.unlink()


@pytest.mark.parametrize(
    "images",
    [
        tiff_frames, webp_frames, one_array, a_view_of_one_array, a_memory_map, an_image_of_one_array,
        one_image_pasted_over, one_bytearray, one_memoryview, one_file_object, an_open_file_that_ends_with_its_turn,
        one_path_written_over, files_deleted_after_their_turn,
    ],
)  # fmt: skip
def test_a_stream_may_use_one_thing_again_and_again(
    model: Model,
    frames: list[Image.Image],
    answered: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    images: Callable[[list[Image.Image], Path], Iterator[Any]],
) -> None:
    pixels, expected = answered
    assert np.abs(expected[1:] - expected[:-1]).max(axis=1).min() > 0.01  # a row of the neighbour would be noticed
    np.testing.assert_array_equal(model.preprocess(images(frames, tmp_path)), pixels)
    np.testing.assert_allclose(model.embed_images(images(frames, tmp_path)), expected, rtol=0, atol=CLOSE)
    parts = model.iter_embed_images(images(frames, tmp_path), batch_size=2)
    np.testing.assert_allclose(np.concatenate([part.embeddings for part in parts]), expected, rtol=0, atol=CLOSE)


def test_classify_takes_a_stream(model: Model, frames: list[Image.Image], tmp_path: Path) -> None:
    labels = ["cat", "rocket"]
    probabilities = model.classify(one_array(frames, tmp_path), labels)
    np.testing.assert_allclose(probabilities, model.classify(frames, labels), rtol=0, atol=1e-3)


def test_frames_of_a_gif_are_those_of_their_turn(model: Model, frames: list[Image.Image], tmp_path: Path) -> None:
    """A GIF's colours differ from the original's, so its frames are compared with their copies."""
    copies = [frame.copy() for frame in frames_of("GIF", frames)]
    expected = np.concatenate([model.preprocess([copy]) for copy in copies])
    np.testing.assert_array_equal(model.preprocess(frames_of("GIF", frames)), expected)


def test_a_list_may_hold_one_thing_several_times(model: Model, frames: list[Image.Image], tmp_path: Path) -> None:
    data = encoded(frames[0].resize((1200, 900)))
    expected = model.embed_images([data])
    shared = io.BytesIO(data)
    (tmp_path / "one.png").write_bytes(data)
    with (tmp_path / "one.png").open("rb") as file:
        for make in (
            lambda: [Image.open(io.BytesIO(data))] * COUNT,
            lambda: [Image.open(tmp_path / "one.png")] * COUNT,
            lambda: [Image.open(shared), Image.open(shared), data] * 3,
            lambda: [file] * COUNT,
            lambda: [file, data, file] * 3,
        ):
            embeds = model.embed_images(make())
            np.testing.assert_allclose(embeds, np.repeat(expected, COUNT, axis=0), rtol=0, atol=CLOSE)
        assert file.tell() == 0


def test_threads_may_share_an_image_that_nobody_has_decoded(model: Model, frames: list[Image.Image]) -> None:
    data = encoded(frames[0].resize((1200, 900)))
    expected = model.embed_images([data])
    for _ in range(2):
        image = Image.open(io.BytesIO(data))
        with ThreadPoolExecutor(6) as pool:
            rows = list(pool.map(model.embed_images, [[image, image]] * 6))
        np.testing.assert_allclose(np.concatenate(rows), np.repeat(expected, 12, axis=0), rtol=0, atol=CLOSE)


def test_what_cannot_change_is_not_copied(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (8, 8)))
    assert detach(data, False, DEFAULT_IMAGES).data is data  # type: ignore[union-attr]
    array = np.zeros((8, 8, 3), np.uint8)
    lazy = Image.open(io.BytesIO(data))
    assert detach(array, True, DEFAULT_IMAGES) is array
    assert detach(lazy, True, DEFAULT_IMAGES) is lazy
    assert lazy.getim() is not None
    for one in (array, Image.new("RGB", (8, 8)), lazy):
        assert detach(one, False, DEFAULT_IMAGES) is not one
    missing = tmp_path / "missing.png"
    assert detach(missing, True, DEFAULT_IMAGES) == str(missing)  # the thread that decodes it reads it
    with pytest.raises(InputError, match="does not exist"):
        detach(missing, False, DEFAULT_IMAGES)


def test_images_that_wait_are_limited_by_their_bytes(
    model: Model, frames: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images wait; the calling thread prepares the others itself."""
    expected = model.embed_images(frames)
    monkeypatch.setattr(image_intake, "MAX_WAITING_BYTES", 3 * 4 * WIDTH * HEIGHT)
    waiting: list[int] = []
    original = image_intake.ImageIntake._take

    def take(intake: image_intake.ImageIntake, *arguments: Any) -> Any:
        taken = original(intake, *arguments)
        waiting.append(intake._waiting_bytes)
        return taken

    monkeypatch.setattr(image_intake.ImageIntake, "_take", take)
    np.testing.assert_allclose(model.embed_images(iter(frames)), expected, rtol=0, atol=CLOSE)
    assert len(waiting) == COUNT
    assert 0 < max(waiting) <= 3 * 4 * WIDTH * HEIGHT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_while_an_image_is_decoded_does_not_block_the_child() -> None:
    image = Image.new("RGB", (8, 8))
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with image_intake._lock_of(image):
            held.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while threads run
        child = os.fork()
    if child == 0:
        threading.Timer(10, lambda: os._exit(1)).start()
        detach(image, True, DEFAULT_IMAGES)
        os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_an_array_class_that_makes_its_items_is_no_list(model: Model, frames: list[Image.Image]) -> None:
    class Recording(np.ndarray):
        def __iter__(self) -> Iterator[np.ndarray]:
            buffer = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            for frame in frames:
                buffer[:] = np.asarray(frame)
                yield buffer

    images = np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8).view(Recording)
    assert np.abs(model.embed_images(images) - model.embed_images(frames)).max() < CLOSE
