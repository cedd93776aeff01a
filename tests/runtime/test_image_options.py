"""Options of images: what is accepted, and that a model and the commands use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

import align_runtime
from align_runtime import ConfigurationError, InputError
from align_runtime.commands import classify
from align_runtime.image_options import DEFAULT_FORMATS, FORMATS, ImageOptions
from support.made_images import encoded


def test_defaults_and_canonical_values() -> None:
    assert ImageOptions() == ImageOptions("drop", ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"), 67_108_864)
    assert ImageOptions(formats=["png", "Jpeg", "png"]).formats == ("JPEG", "PNG")
    assert (ImageOptions().background, ImageOptions("#102030").background) == (None, (16, 32, 48))
    assert ImageOptions(max_pixels=100).max_file_bytes == 800 + (16 << 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": "whitish"}, 'alpha is .whitish.; expected "drop" or an opaque colour'),
        ({"alpha": "#ffffff80"}, "alpha is"),
        ({"alpha": None}, "alpha is None"),
        ({"alpha": (255, 255, 255)}, "alpha is"),
        ({"alpha": ""}, "alpha is ''"),
        ({"alpha": "x" * 10**6}, "alpha is 'xxx"),
        ({"formats": "JPEG"}, "formats is 'JPEG'; expected some of JPEG, PNG"),
        ({"formats": ()}, "formats is"),
        ({"formats": ("JPEG", "EPS")}, "formats is"),
        ({"formats": (3,)}, "formats is"),
        ({"formats": None}, "formats is None"),
        ({"max_pixels": 0}, "max_pixels is 0; expected an integer from 1 to 178956970"),
        ({"max_pixels": 178_956_971}, "max_pixels is"),
        ({"max_pixels": True}, "max_pixels is True"),
        ({"max_pixels": 1e6}, "max_pixels is 1000000.0"),
        ({"max_pixels": "1000"}, "max_pixels is '1000'"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str, tiny_bundle: Path) -> None:
    for call in (lambda: ImageOptions(**values), lambda: align_runtime.load(tiny_bundle, **values)):
        with pytest.raises(ConfigurationError, match=message) as caught:
            call()
        assert len(str(caught.value)) <= 500


CLEAR = Image.new("RGBA", (70, 70), (200, 30, 90, 0))


def test_a_model_uses_them(tiny_bundle: Path) -> None:
    avif = encoded(CLEAR.convert("RGB"), "AVIF")
    with align_runtime.load(tiny_bundle, alpha="white", formats=FORMATS, max_pixels=70 * 70) as model:
        assert model.info.image_options == ImageOptions("white", FORMATS, 4900)
        blank, clear = Image.new("RGB", (70, 70), "white"), encoded(CLEAR, "PNG")
        numpy.testing.assert_array_equal(model.preprocess([clear]), model.preprocess([blank]))
        numpy.testing.assert_array_equal(model.embed_images([clear] * 9)[8:], model.embed_images([blank]))
        assert model.preprocess([avif]).shape[0] == 1
        for call in (model.preprocess, model.embed_images):
            with pytest.raises(InputError, match="expected at most 4900") as caught:
                call([blank, Image.new("RGB", (70, 71))])
            assert caught.value.index == 1
    with align_runtime.load(tiny_bundle, towers=("vision",)) as model:
        assert model.info.image_options.formats == DEFAULT_FORMATS
        with pytest.raises(InputError, match="is in the format AVIF"):
            model.embed_images([avif])


def test_the_commands_take_them(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clear.png").write_bytes(encoded(CLEAR, "PNG"))
    Image.new("RGB", (70, 70), "white").save(tmp_path / "white.png")
    CLEAR.convert("RGB").save(tmp_path / "opaque.png")
    paths = [str(tmp_path / f"{name}.png") for name in ("clear", "white", "opaque")]

    def rows(*options: str) -> list[list[float]]:
        given = [str(tiny_bundle), *paths, "--labels", "a red square", "nothing", "--json", *options]
        assert classify.main(given) == 0
        return [entry["probabilities"] for entry in json.loads(capsys.readouterr().out)["images"]]

    clear, white, opaque = rows()
    assert clear == opaque != white
    clear, white, opaque = rows("--alpha", "white")
    assert clear == white != opaque
    common = [str(tiny_bundle), *paths, "--labels", "cat"]
    assert classify.main([*common, "--max-pixels", "4899"]) == 2
    assert "expected at most 4899" in capsys.readouterr().err
    assert classify.main([*common, "--formats", "jpeg,webp"]) == 2
    assert "is in the format PNG, which is not allowed" in capsys.readouterr().err
    assert classify.main([*common, "--alpha", "whitish"]) == 2
    assert "alpha is 'whitish'" in capsys.readouterr().err
