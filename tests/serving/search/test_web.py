"""``align-search serve``: the page, its API, and what a stranger's request must not get."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from align_runtime.image_options import ImageOptions
from align_runtime.load_options import LoadOptions
from align_runtime.progress import Progress
from align_serving.embed import command as embed_command
from align_serving.embed.reading import open_embeddings
from align_serving.http.listening import LOOPBACK
from align_serving.http.opening import Opened, ServiceOptions, application
from align_serving.search.index import open_index
from align_serving.search.thumbnails import Thumbnails
from align_serving.search.web import SearchPage
from serving.search.conftest import CAPTIONS
from support.running_service import data_uri

LOCAL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def photos(embedded: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that a test may change, embedded in ``e`` beside them."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((embedded / "photos").glob("*.png"))[:4]:
        shutil.copy(path, folder / path.name)
    arguments = [tiny_bundle, folder, "-o", folder.parent / "photos-e", "--quiet", "--threads", 1]
    assert embed_command.main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def client(embedded: Path, photos: Path, tiny_bundle: Path) -> Iterator[TestClient]:
    options = ServiceOptions(load=LoadOptions(threads=1))
    opened = Opened.of(tiny_bundle, options)
    folders = [embedded / "images", embedded / "texts", photos.parent / "photos-e"]
    indexes = [open_index(open_embeddings(folder), "exact", Progress(quiet=True)) for folder in folders]
    pages: list[SearchPage] = []

    def extend(app: object, service: object) -> None:
        pages.append(SearchPage(indexes, Thumbnails(ImageOptions()), service))  # type: ignore[arg-type]
        pages[0].add_to(app, LOOPBACK)  # type: ignore[arg-type]

    with opened.towers.model, TestClient(application(opened, options, extend=extend), LOCAL) as client:
        yield client
    pages[0].close()


def found(client: TestClient, **body: object) -> list[dict[str, object]]:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_text_to_images_image_to_images_image_to_texts_and_like(client: TestClient, embedded: Path) -> None:
    best = found(client, input=CAPTIONS[0], top=3)[0]
    assert Path(str(best["id"])).name == "green-heart.png"
    image = data_uri((embedded / "photos/green-heart.png").read_bytes())
    assert found(client, input=image)[0]["row"] == best["row"]
    assert found(client, input={"image": image}, folder=1)[0]["text"] == CAPTIONS[0]
    same = found(client, like={"folder": 0, "row": best["row"]}, top=1)
    assert same[0]["row"] == best["row"]
    assert same[0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_thumbnail_is_a_small_jpeg(client: TestClient) -> None:
    best = found(client, input=CAPTIONS[0])[0]
    answer = client.get(str(best["thumbnail"]))
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(BytesIO(answer.content)) as image:
        assert max(image.size) <= 320


@pytest.mark.parametrize(
    "path",
    [
        "/thumbnails/0/999",
        "/thumbnails/1/0",
        "/thumbnails/9/0",
        "/thumbnails/0/-1",
        "/thumbnails/0/..%2f..%2fetc%2fpasswd",
        "/thumbnails/0/0/../../../../etc/passwd",
        "/../../etc/passwd",
        "/search/index.py",
        "/thumbnails/0/" + "9" * 400,
    ],
)
def test_what_is_no_row_of_images_is_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_a_link_in_the_place_of_an_image_is_not_followed(client: TestClient, photos: Path, embedded: Path) -> None:
    hits = {Path(str(hit["id"])).name: hit for hit in found(client, input="a", folder=2)}
    names = sorted(hits)
    outside = embedded / "photos" / names[0]
    (photos / names[0]).unlink()
    (photos / names[0]).symlink_to(outside)
    (photos / names[1]).unlink()
    (photos / names[2]).write_bytes(b"root:x:0:0:root")
    for name, words in zip(names, ["link", "no longer there", "not an image"], strict=False):
        answer = client.get(str(hits[name]["thumbnail"]))
        assert answer.status_code == 404
        assert words in answer.json()["error"]["message"]
        assert str(photos) not in answer.text


@pytest.mark.parametrize(
    "body",
    [{}, {"input": "a", "like": {"folder": 0, "row": 0}}, {"input": "a", "top": 0}, {"input": "a", "top": 201},
     {"like": {"folder": 0, "row": 999}}, {"input": "a", "folder": -1}, {"input": 3}, {"input": "a", "path": "/etc"},
     {"input": {"image": "/etc/passwd"}}, {"input": {"image": "https://example.com/a.png"}}],
)  # fmt: skip
def test_a_wrong_search_is_400(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/v1/search", json=body).status_code == 400


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient) -> None:
    for path in ("/", "/search.js", "/search.css", "/v1/folders", "/healthz", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/search.css", "/search.js"):
        assert "http:" not in client.get(path).text
        assert "https:" not in client.get(path).text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_a_name_of_a_stranger_that_leads_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/v1/folders", headers={"host": host}).status_code == 400
    assert client.post("/v1/search", json={"input": "a"}, headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "[::1]:80", "[::1]", "127.0.0.1"])
def test_loopback_has_several_names(client: TestClient, host: str) -> None:
    assert client.get("/v1/folders", headers={"host": host}).status_code == 200


def test_a_form_of_another_site_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/search", content='{"input": "a"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415
