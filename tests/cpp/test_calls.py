"""Calls of the C API that are wrong, or come at a bad moment: every one has its status and its message."""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import byref, c_char_p, c_float, c_int64, c_size_t, c_uint8
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_runtime import Model
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, InputError
from runtime.test_forks import run_program
from support.native import BUFFER_TOO_SMALL, Bytes, Image, NativeModel, onnxruntime_library

TESTS = str(Path(__file__).parents[1])


def message(native: NativeModel) -> str:
    return native.library.align_last_error().decode()


def floats(count: int) -> Any:
    return (c_float * count)()


def test_a_buffer_that_is_too_small_is_told_its_size(native: NativeModel) -> None:
    text, pixels = (c_char_p * 2)(b"a", b"b"), np.zeros((9, 9, 3), np.uint8)
    dim, size = native.dim, int(np.prod(native.image_size)) * 3
    for room in (0, 1, 2 * dim - 1):
        status = native.library.align_embed_texts(native.handle, text, 2, floats(2 * dim), room)
        assert status == BUFFER_TOO_SMALL
        assert f"holds {room} floats; {2 * dim} are needed (2 × {dim})" in message(native)
    status = native.library.align_preprocess(native.handle, byref(Image.of(pixels)), (c_uint8 * size)(), size - 1)
    assert status == BUFFER_TOO_SMALL
    assert f"{size} are needed" in message(native)
    length = c_size_t()
    assert native.library.align_tokenize(native.handle, b"a cat", None, 0, byref(length)) == BUFFER_TOO_SMALL
    assert length.value == len(native.tokenize("a cat"))
    row = floats(dim)
    assert native.library.align_logits(native.handle, row, 1, row, 1, row, 0) == BUFFER_TOO_SMALL


def test_counts_that_no_memory_holds(native: NativeModel) -> None:
    text = (c_char_p * 1)(b"a")
    assert native.library.align_embed_texts(native.handle, text, (1 << 64) - 1, floats(1), 1) == 1
    assert native.library.align_embed_texts(native.handle, text, 1 << 60, floats(1), 1) in (1, BUFFER_TOO_SMALL)


def test_null(native: NativeModel) -> None:
    """Of an argument it is a wrong call, of one of several inputs an error of that input."""
    library, handle, row = native.library, native.handle, floats(3 * native.dim)
    assert library.align_embed_texts(handle, None, 1, row, len(row)) == 1
    assert library.align_embed_texts(handle, (c_char_p * 1)(b"a"), 1, None, len(row)) == 1
    assert library.align_embed_images(handle, None, 1, row, len(row)) == 1
    assert library.align_embed_encoded(handle, None, 1, row, len(row)) == 1
    assert library.align_embed_pixels(handle, None, 1, row, len(row)) == 1
    assert library.align_tokenize(handle, None, (c_int64 * 9)(), 9, byref(c_size_t())) == 1
    assert library.align_tokenize(handle, b"", (c_int64 * 9)(), 9, None) == 1
    assert library.align_preprocess(handle, None, (c_uint8 * 9)(), 9) == 1
    assert library.align_logits(handle, None, 1, row, 1, row, 1) == 1
    texts = (c_char_p * 3)(b"a", None, b"b")
    assert library.align_embed_texts(handle, texts, 3, row, len(row)) == 3
    assert (message(native).partition(";")[0], library.align_last_error_index()) == ("input 1: the text is NULL", 1)
    assert library.align_embed_images(handle, (Image * 1)(Image(None, 9, 9, 27, 3)), 1, row, len(row)) == 3
    assert library.align_embed_encoded(handle, (Bytes * 1)(Bytes(None, 9)), 1, row, len(row)) == 3
    assert library.align_embed_encoded(handle, (Bytes * 1)(Bytes(b"", 0)), 1, row, len(row)) == 3


IMAGES = {
    "no width": (0, 9, 27, 3),
    "no height": (9, 0, 27, 3),
    "two channels": (9, 9, 27, 2),
    "channels of a stranger": (9, 9, 27, -1),
    "a stride below a row": (9, 9, 26, 3),
    "100,000 wide": (100_000, 1, 0, 3),
    "too many pixels": (60_000, 60_000, 0, 3),
    "a width that overflows": ((1 << 63) + 1, 2, 0, 4),
    "a height that overflows": (1, (1 << 64) - 1, 4, 4),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_are_none(native: NativeModel, name: str) -> None:
    data = np.zeros(1 << 20, np.uint8)
    good = Image.of(np.zeros((9, 9, 3), np.uint8))
    images = (Image * 3)(good, Image(data.ctypes.data, *IMAGES[name]), good)
    with pytest.raises(InputError, match="^input 1: ") as caught:
        native._embed("embed_images", images, 3)
    assert caught.value.index == 1


@pytest.mark.parametrize("name", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"])
def test_files_that_are_no_images(native: NativeModel, name: bytes) -> None:
    with pytest.raises(InputError, match="^input 0: ") as caught:
        native.embed_encoded([name])
    assert caught.value.index == 0


@pytest.mark.parametrize(
    ("text", "offset"), [(b"ab\xff", 2), (b"\xc3", 0), (b"a\xed\xa0\x80", 1), (b"\xf4\x90\x80\x80", 0)]
)
def test_text_that_is_not_utf_8(native: NativeModel, text: bytes, offset: int) -> None:
    for call in (lambda: native.tokenize(text), lambda: native.embed_texts([b"a", text])):
        with pytest.raises(InputError, match=rf"\b{offset}\b"):
            call()


def test_text_that_is_too_long(native: NativeModel) -> None:
    with pytest.raises(InputError, match="1000001 characters; expected at most 1000000"):
        native.embed_texts(["é" * 1_000_001])
    assert len(native.tokenize("é" * 1_000_000)) <= 32


def test_rows_that_are_no_embeddings(native: NativeModel) -> None:
    row = np.zeros((2, native.dim), np.float32)
    row[0, 0] = 1
    with pytest.raises(InputError, match="texts has a row of length 0"):
        native.logits(row[:1], row)
    row[1, 0] = np.nan
    with pytest.raises(InputError, match="images contains NaN") as caught:
        native.logits(row, row[:1])
    assert caught.value.index == 1


def test_a_closed_model(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    native = NativeModel(library, tiny_bundle, threads=1)
    for _ in range(2):
        library.align_close(native.handle)
    for call in (lambda: native.embed_texts(["a"]), lambda: native.tokenize("a")):
        with pytest.raises(ConfigurationError, match="the model is closed"):
            call()
    assert library.align_embedding_dim(native.handle) == 0
    with NativeModel(library, tiny_bundle, threads=1) as other:
        assert other.handle.value != native.handle.value
        with pytest.raises(ConfigurationError):
            native.embed_texts(["a"])


def test_closing_waits_for_calls(library: ctypes.CDLL, tiny_bundle: Path, model: Model) -> None:
    """Every call ends with its rows, or with the error of a closed model."""
    texts = ["a photo of a cat"] * 50
    expected = model.embed_texts(texts)
    for _ in range(3):
        native = NativeModel(library, tiny_bundle, threads=2)
        begun, outcomes = threading.Barrier(5), []

        def client(native: NativeModel = native, begun: threading.Barrier = begun, outcomes: list = outcomes) -> None:
            begun.wait()
            try:
                while True:
                    np.testing.assert_allclose(native.embed_texts(texts), expected, rtol=0, atol=1e-6)
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        threads[0].join(0.05)
        library.align_close(native.handle)
        for thread in threads:
            thread.join()
        assert [type(outcome) for outcome in outcomes] == [ConfigurationError] * 4


def test_backends_that_are_missing(library: ctypes.CDLL, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="libonnxruntime_gone.so.*install ONNX Runtime"):
        NativeModel(library, tiny_bundle, onnxruntime_library="libonnxruntime_gone.so")
    with pytest.raises(BackendUnavailableError, match="is not ONNX Runtime"):
        NativeModel(library, tiny_bundle, onnxruntime_library="libm.so.6")
    for device in ("cuda", "cuda:3"):
        with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider"):
            NativeModel(library, tiny_bundle, device=device)
    with pytest.raises(BackendUnavailableError, match="the C\\+\\+ runtime does not have"):
        NativeModel(library, tiny_bundle, device="tensorrt")
    monkeypatch.setenv("ALIGN_ONNXRUNTIME_LIBRARY", str(onnxruntime_library()))
    NativeModel(library, tiny_bundle, onnxruntime_library="", threads=1).__exit__(None, None, None)


def test_errors_belong_to_their_thread(library: ctypes.CDLL) -> None:
    def fail(name: str) -> str:
        with pytest.raises(BundleError) as caught:
            NativeModel(library, Path(name))
        return str(caught.value)

    assert "/nowhere-1" in fail("/nowhere-1")
    thread = threading.Thread(target=fail, args=["/nowhere-2"])
    thread.start()
    thread.join()
    assert "/nowhere-1" in library.align_last_error().decode()


FORKED = """
import os, sys
sys.path.append(sys.argv[2])
from pathlib import Path
from align_runtime.errors import ConfigurationError
from support.native import NativeModel, load_library

native = NativeModel(load_library(), Path(sys.argv[1]), threads=2)
native.embed_texts(["a"] * 8)
child = os.fork()
if child == 0:
    try:
        native.embed_texts(["a"])
    except ConfigurationError as error:
        print("refused" if "after the fork" in str(error) else error, flush=True)
    native.library.align_close(native.handle)
    again = NativeModel(native.library, Path(sys.argv[1]), threads=2)
    print(again.embed_texts(["a"] * 8).shape[0], flush=True)
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), native.embed_texts(["a"]).shape[0])
"""


def test_a_forked_child(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    assert run_program(FORKED, str(tiny_bundle), TESTS).split() == ["refused", "8", "0", "1"]


MEMORY = """
import ctypes, resource, sys
sys.path.append(sys.argv[2])
import numpy as np
from pathlib import Path
from align_runtime.errors import AlignError
from support.native import NativeModel, load_library

def limit(spare):
    size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, ((size << 10) + spare, resource.RLIM_INFINITY))

def attempt(work):
    try:
        work()
    except AlignError as error:
        print(type(error).__name__)
    else:
        print("done")

library, bundle = load_library(), Path(sys.argv[1])
native = NativeModel(library, bundle, threads=1, streams=1)
one = ctypes.create_string_buffer(b"a")
texts = np.full(8_000_000, ctypes.addressof(one), np.uint64)
many, rows = texts.ctypes.data_as(ctypes.POINTER(ctypes.c_char_p)), np.empty((len(texts), native.dim), np.float32)
few = native.embed_texts(["a photo of a cat"])
limit(3 << 20)
attempt(lambda: NativeModel(library, bundle, threads=1, streams=1))
out = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
attempt(lambda: native.check(library.align_embed_texts(native.handle, many, len(texts), out, rows.size)))
limit(1 << 30)
np.testing.assert_allclose(native.embed_texts(["a photo of a cat"]), few, atol=1e-6)  # it works on
"""


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASan reserves terabytes of addresses")
def test_memory_runs_out(library: ctypes.CDLL, tiny_bundle: Path) -> None:
    assert run_program(MEMORY, str(tiny_bundle), TESTS).split() == ["DeviceError", "DeviceError"]
