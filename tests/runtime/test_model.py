"""The model on align-tiny: order, batches, threads, forms of input, scores, and errors."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import align_runtime
from align_runtime import BundleError, ConfigurationError, InputError, Model, golden, similarity
from align_runtime.commands import verify
from align_runtime.tower import Tower

BATCHING_TOLERANCE = 1e-5  # results must not depend on the other rows of a batch


def test_agrees_with_the_reference_from_text_and_file_on(model: Model, answers: golden.Golden) -> None:
    np.testing.assert_allclose(model.embed_texts(answers.texts), answers.text_embeds, rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.embed_images(answers.images), answers.image_embeds, rtol=0, atol=2e-5)


def test_order_and_batching_do_not_matter(model: Model, answers: golden.Golden) -> None:
    texts = [*answers.texts] * 3  # more than one batch, of mixed lengths
    together = model.embed_texts(texts)
    alone = np.concatenate([model.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=0, atol=BATCHING_TOLERANCE)
    images = [*answers.images, *reversed(answers.images), answers.images[0]]
    together = model.embed_images(images)
    alone = np.concatenate([model.embed_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=0, atol=BATCHING_TOLERANCE)


def test_different_inputs_differ(model: Model, answers: golden.Golden) -> None:
    for embeds in (model.embed_texts(answers.texts), model.embed_images(answers.images)):
        assert (embeds @ embeds.T).min() < 0.9


def test_nothing_gives_no_rows(model: Model) -> None:
    dim = model.info.embedding_dim
    for embeds in (model.embed_texts([]), model.embed_images([]), model.embed_images(iter(()))):
        assert (embeds.shape, embeds.dtype) == ((0, dim), np.float32)


def test_every_form_of_image_gives_the_same(model: Model, answers: golden.Golden) -> None:
    path = next(image for image in answers.images if image.name == "cat.jpg")
    image = Image.open(path)
    data = path.read_bytes()
    encoded = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)]
    embeds = model.embed_images([*encoded, image, np.asarray(image)])
    for row in embeds[1:]:
        np.testing.assert_allclose(row, embeds[0], rtol=0, atol=BATCHING_TOLERANCE)


def test_a_long_text_is_cut_at_the_limit(model: Model) -> None:
    long = "red circle " * 500
    np.testing.assert_array_equal(model.embed_texts([long]), model.embed_texts([long[: 11 * model.info.max_length]]))


def test_many_threads_share_a_model(model: Model, answers: golden.Golden) -> None:
    expected_texts, expected_images = model.embed_texts(answers.texts), model.embed_images(answers.images)
    failures: list[str] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(answers.texts))
        texts = model.embed_texts([answers.texts[index] for index in order])
        images = model.embed_images(answers.images)
        if np.abs(texts - expected_texts[order]).max() > BATCHING_TOLERANCE:
            failures.append(f"texts of thread {seed}")
        if np.abs(images - expected_images).max() > BATCHING_TOLERANCE:
            failures.append(f"images of thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_logits_are_cosines_divided_by_the_temperature(model: Model, answers: golden.Golden) -> None:
    images, texts = answers.image_embeds[:2], answers.text_embeds[:5]
    cosines, logits = model.cosine(images, texts), model.logits(images, texts)
    assert (cosines.shape, cosines.dtype) == (logits.shape, logits.dtype) == ((2, 5), np.float32)
    np.testing.assert_allclose(cosines, images @ texts.T, rtol=1e-6)
    np.testing.assert_allclose(logits, images @ texts.T / model.info.temperature, rtol=1e-6)
    assert model.info.temperature != 1


def test_classify_is_the_softmax_of_the_logits(model: Model, answers: golden.Golden) -> None:
    labels = ["cat", "cup of coffee", "rocket"]
    probabilities = model.classify(answers.images, labels)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    texts = model.embed_texts([f"a photo of a {label}" for label in labels])
    logits = model.logits(model.embed_images(answers.images), texts).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-6)
    assert model.classify([], labels).shape == (0, 3)
    other = model.classify(answers.images, labels, template="{}")
    assert np.abs(other - probabilities).max() > 1e-4


def test_float32_pixel_input_gives_the_same(
    model: Model, tiny_checkpoint: Path, tmp_path: Path, answers: golden.Golden
) -> None:
    from align_exporter.command import main

    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), "--pixel-input", "float32", "--quiet"]) == 0
    with align_runtime.load(tmp_path / "bundle") as other:
        (tensor,) = align_runtime.Bundle.open(tmp_path / "bundle").graph("vision", "fp32", "cpu").inputs
        assert (tensor.name, tensor.dtype, tensor.shape[1]) == ("pixel_values", "float32", 3)
        other.warmup()
        np.testing.assert_allclose(
            other.embed_images(answers.images), model.embed_images(answers.images), rtol=0, atol=2e-5
        )
        labels = ["cat", "rocket"]
        np.testing.assert_allclose(
            other.classify(answers.images, labels), model.classify(answers.images, labels), rtol=0, atol=1e-4
        )
    assert verify.main([str(tmp_path / "bundle"), "--quiet"]) == 0


def test_threads_change_nothing_but_speed(tiny_bundle: Path, model: Model, answers: golden.Golden) -> None:
    with align_runtime.load(tiny_bundle, threads=1) as single:
        np.testing.assert_allclose(
            single.embed_texts(answers.texts), model.embed_texts(answers.texts), rtol=0, atol=BATCHING_TOLERANCE
        )
    for threads in ("2", True, 1.5, 0, -1, 10**6):
        with pytest.raises(ConfigurationError, match=f"threads is {threads!r}"):
            align_runtime.load(tiny_bundle, threads=threads)  # type: ignore[arg-type]


def test_closing(tiny_bundle: Path) -> None:
    model = align_runtime.load(tiny_bundle)
    model.close()
    model.close()
    for call in (model.embed_texts, model.embed_images, model.preprocess):
        with pytest.raises(ConfigurationError, match="closed"):
            call([np.zeros((4, 4, 3), np.uint8)] if call != model.embed_texts else ["red"])


def test_repr_says_what_it_is(model: Model) -> None:
    assert repr(model) == f"<align_runtime.Model align-tiny fp32 on cpu, {model.info.embedding_dim} dimensions>"


def test_one_text_or_one_image_is_not_a_list(model: Model, answers: golden.Golden) -> None:
    for text in ("red circle", b"red", None, 3):
        with pytest.raises(InputError, match=f"list of texts, got {type(text).__name__}"):
            model.embed_texts(text)  # type: ignore[arg-type]
    array = np.zeros((50, 40, 3), np.uint8)  # 50 rows: 50 grey images, if it were taken for a list
    path = answers.images[0]
    encoded = (path, str(path), b"", bytearray(3), memoryview(b"123"), io.BytesIO(path.read_bytes()))
    for image in (*encoded, array, array[..., 0], Image.fromarray(array), None, 3):
        for call in (model.embed_images, model.preprocess):
            with pytest.raises(InputError, match=f"list of images, got {type(image).__name__}"):
                call(image)  # type: ignore[arg-type]
    for labels in ("cat", b"cat", None):
        with pytest.raises(ConfigurationError, match=f"labels is a {type(labels).__name__}"):
            model.classify(answers.images, labels)  # type: ignore[arg-type]


def test_any_iterable_is_a_list(model: Model, answers: golden.Golden) -> None:
    texts, images = ["a cat", "a cup"], answers.pixels[:3]
    for some in (tuple(texts), iter(texts), dict.fromkeys(texts), np.array(texts)):
        np.testing.assert_array_equal(model.embed_texts(some), model.embed_texts(texts))
    for stack in (images, np.asfortranarray(images), iter(images)):
        np.testing.assert_array_equal(model.embed_images(stack), model.embed_images(list(images)))
    images.flags.writeable = False
    assert len(model.embed_images(images)) == 3
    labels = ["cat", "cat", "", "{}"]
    probabilities = model.classify(images, iter(labels), template="{} or {}")
    np.testing.assert_array_equal(probabilities[:, 0], probabilities[:, 1])
    texts = model.embed_texts([f"{label} or {label}" for label in labels])
    logits = model.logits(model.embed_images(images), texts)
    np.testing.assert_allclose(np.log(probabilities[:, 2] / probabilities[:, 0]), logits[:, 2] - logits[:, 0], 1e-3)


def test_preprocessed_pixels(model: Model, answers: golden.Golden) -> None:
    np.testing.assert_allclose(model.embed_pixels(answers.pixels), answers.image_embeds, rtol=0, atol=2e-5)
    assert model.embed_pixels(answers.pixels[:0]).shape == (0, model.info.embedding_dim)
    for pixels in (answers.pixels[0], answers.pixels[:, 1:], answers.pixels.astype(np.float32), [1]):
        with pytest.raises(InputError, match=r"expected uint8 \(n, 65, 65, 3\)"):
            model.embed_pixels(pixels)  # type: ignore[arg-type]


def test_preprocessing_and_embedding_apart(model: Model, answers: golden.Golden) -> None:
    pixels = model.preprocess(iter(answers.images))
    np.testing.assert_array_equal(pixels, answers.pixels, strict=True)
    assert model.preprocess([]).shape == (0, *model.info.image_size, 3)
    np.testing.assert_allclose(
        model.embed_pixels(pixels), model.embed_images(answers.images), rtol=0, atol=BATCHING_TOLERANCE
    )
    with pytest.raises(InputError) as caught:
        model.preprocess([*answers.images, b"no image"])
    assert caught.value.index == len(answers.images)


@pytest.mark.parametrize("streams", [1, 2])
def test_batch_sizes(tiny_bundle: Path, answers: golden.Golden, monkeypatch: pytest.MonkeyPatch, streams: int) -> None:
    """A run has at most as many rows as asked for, and the results are the same."""
    rows: list[int] = []
    for name in ("run", "run_stream"):
        original = getattr(Tower, name)

        def counted(tower: Tower, inputs: Any, original: Any = original) -> Any:
            rows.append(len(next(iter(inputs.values()))))
            return original(tower, inputs)

        monkeypatch.setattr(Tower, name, counted)
    with align_runtime.load(tiny_bundle, threads=2, streams=streams) as model:
        texts, images = [*answers.texts] * 2, [*answers.images] * 2
        expected = model.embed_texts(texts), model.embed_images(images)
        for size in (1, 3, 1000):
            rows.clear()
            embeds = model.embed_texts(texts, batch_size=size)
            assert (max(rows), sum(rows)) == (min(size, len(texts)), len(texts))
            np.testing.assert_allclose(embeds, expected[0], rtol=0, atol=BATCHING_TOLERANCE)
            rows.clear()
            embeds = model.embed_images(images, batch_size=size)
            assert (max(rows), sum(rows)) == (min(size, len(images)), len(images))
            np.testing.assert_allclose(embeds, expected[1], rtol=0, atol=BATCHING_TOLERANCE)
        for size in (0, -1, 1.5, "8", True, 2**62, -(10**5000)):
            for call, inputs in ((model.embed_texts, texts), (model.embed_images, images)):
                with pytest.raises(ConfigurationError, match="batch_size"):
                    call(inputs, batch_size=size)  # type: ignore[arg-type, operator]


def test_an_error_names_the_place_in_the_whole_input(model: Model, answers: golden.Golden) -> None:
    with pytest.raises(InputError, match="int") as caught:
        model.embed_texts(["a", "b", 3])  # type: ignore[list-item]
    assert caught.value.index == 2
    images = [*answers.images, *answers.images, b"no image"]
    with pytest.raises(InputError) as caught:
        model.embed_images(images)
    assert caught.value.index == len(images) - 1
    assert str(caught.value).startswith(f"input {len(images) - 1}: ")


def test_truncated_image(model: Model, answers: golden.Golden) -> None:
    buffer = io.BytesIO()
    Image.open(answers.images[0]).save(buffer, "PNG")
    with pytest.raises(InputError, match="truncated") as caught:
        model.embed_images([buffer.getvalue()[: len(buffer.getvalue()) // 2]])
    assert caught.value.index == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_take_only_embeddings(model: Model, answers: golden.Golden, value: float) -> None:
    broken = answers.image_embeds.copy()
    broken[1, 2] = value
    with pytest.raises(InputError, match="images .*NaN") as caught:
        model.logits(broken, answers.text_embeds)
    assert caught.value.index == 1
    with pytest.raises(InputError, match=r"texts has shape \(3,\)"):
        model.logits(answers.image_embeds, np.zeros(3, np.float32))
    for embeds, kind in (("abc", "str"), ([["a"]], "list"), ([[0.0], [0.0, 1.0]], "list"), ({}, "dict")):
        with pytest.raises(InputError, match=f"images is a {kind}"):
            model.logits(embeds, answers.text_embeds)


@pytest.mark.parametrize("factor", [0, 0.5, 1e-30, 2, 1e30, -3])
def test_scores_need_rows_of_unit_length(model: Model, answers: golden.Golden, factor: float) -> None:
    """The product with a row of another length is no cosine: for zeros there is none."""
    broken = answers.text_embeds.copy()
    broken[3] *= np.float32(factor)
    for scores in (model.cosine, model.logits):
        with pytest.raises(InputError, match="texts has a row of length") as caught:
            scores(answers.image_embeds, broken)
        assert caught.value.index == 3


def test_scores_take_embeddings_that_were_stored_in_half_precision(model: Model, answers: golden.Golden) -> None:
    stored = answers.text_embeds.astype(np.float16)
    np.testing.assert_allclose(
        model.cosine(answers.image_embeds, stored), answers.image_embeds @ answers.text_embeds.T, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("temperature", [1e-310, 5e-324, -1e-40, 0.0])
def test_logits_are_never_beyond_float32(temperature: float) -> None:
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(BundleError, match="temperature"):
        similarity.logits(rows, rows, 3, temperature)
    np.testing.assert_array_equal(similarity.logits(rows, rows, 3, 0.01), 100 * rows)


def test_scores_take_what_numpy_takes(model: Model, answers: golden.Golden) -> None:
    expected = model.logits(answers.image_embeds, answers.text_embeds)
    for images in (list(answers.image_embeds), answers.image_embeds.tolist(), answers.image_embeds.astype(np.float64)):
        logits = model.logits(images, answers.text_embeds)
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, expected)


def test_classify_needs_labels_and_a_place_for_them(model: Model, answers: golden.Golden) -> None:
    with pytest.raises(ConfigurationError, match="labels is empty"):
        model.classify(answers.images, [])
    with pytest.raises(ConfigurationError, match="a label is a int"):
        model.classify(answers.images, ["cat", 3])  # type: ignore[list-item]
    for template in ("a photo", "a {0}", None):
        with pytest.raises(ConfigurationError, match="template"):
            model.classify(answers.images, ["cat"], template=template)  # type: ignore[arg-type]
