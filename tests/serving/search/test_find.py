"""``align-search find``: what is nearest to texts and images, on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_serving.embed.reading import open_embeddings
from serving.search.conftest import CAPTIONS, ROOT, Search

DEMO = ROOT / "reference/align-tiny/demo"


def results(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    answer = json.loads(capsys.readouterr().out)
    return [entry for query in answer["queries"] for entry in query["results"]]


def test_a_text_finds_images_with_the_cosines_of_the_runtime(
    search: Search, folders: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("find", folders / "images", "--text", CAPTIONS[0], "--json") == 0
    found = results(capsys)
    stored = [
        (id, row)
        for ids, rows in open_embeddings(folders / "images").decoded()
        for id, row in zip(ids, rows, strict=True)
    ]
    with align_runtime.load(tiny_bundle, towers=("text",)) as model:
        query = model.embed_texts([CAPTIONS[0]])[0]
    cosines = {id: float(row @ query) for id, row in stored}
    assert [entry["id"] for entry in found] == sorted(cosines, key=lambda id: -cosines[id])
    assert Path(found[0]["id"]).name == "green-heart.png"
    np.testing.assert_allclose([entry["score"] for entry in found], sorted(cosines.values(), reverse=True), atol=2e-6)


def test_an_image_finds_itself_and_its_caption(
    search: Search, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = DEMO / "green-heart.png"
    assert search("find", folders / "images", folders / "texts", "--image", image, "--top", 1, "--json") == 0
    first, caption = results(capsys)
    assert Path(first["path"]).name == image.name
    assert first["score"] == pytest.approx(1, abs=1e-5)
    assert caption["text"] == CAPTIONS[0]


def test_the_page_holds_the_images_and_loads_nothing(search: Search, folders: Path, tmp_path: Path) -> None:
    page = tmp_path / "contact.html"
    text = "<script>alert(1)</script>"
    assert search("find", folders / "images", folders / "texts", "--text", text, "--html", page) == 0
    written = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in written
    assert "<script" not in written
    assert "&lt;script&gt;" in written
    assert len(re.findall(r'src="data:image/jpeg;base64,', written)) == len(list(DEMO.glob("*.[pj][np]g")))
    assert not re.search(r'(src|href)="(?!data:)', written)
    assert CAPTIONS[2] in written


def test_the_table_is_one_line_a_result(search: Search, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search("find", folders / "texts", "--text", "a star", "--top", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "“a star”"
    assert lines[3].split()[0] == "1"
    assert CAPTIONS[1] in lines[3]


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "--text or --image"), (("--text", "a", "--top", 1001), "1001"), (("--image", "missing.png"), "missing.png")],
)
def test_a_wrong_query_is_refused(
    search: Search, folders: Path, capsys: pytest.CaptureFixture[str], options: tuple[Any, ...], words: str
) -> None:
    assert search("find", folders / "images", *options) == 2
    assert words in capsys.readouterr().err


def test_another_bundle_is_refused(
    folders: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from align_serving.search import command

    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    manifest = other / "align.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert command.main(["find", str(other), str(folders / "images"), "--text", "a"]) == 2
    assert "another bundle" in capsys.readouterr().err
