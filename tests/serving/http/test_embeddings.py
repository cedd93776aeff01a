"""``/v1/embeddings`` and the paths around it: the rows of plain calls, in the form of OpenAI's API."""

from __future__ import annotations

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from align_serving.http.opening import Opened, ServiceOptions, application
from support.running_service import NAME, data_uri, png, post, rows, running

TEXTS = ["a photo of a red circle", "a cat", ""]


def test_texts_have_the_rows_of_a_plain_call(client: TestClient, opened: Opened) -> None:
    expected = opened.towers.model.embed_texts(TEXTS)
    np.testing.assert_allclose(rows(post(client, input=TEXTS)), expected, rtol=0, atol=1e-6)
    one = post(client, input=TEXTS[0], user="somebody", encoding_format=None, dimensions=96)
    np.testing.assert_allclose(rows(one), expected[:1], rtol=0, atol=1e-6)


def test_floats_and_base64_are_the_same_float32(client: TestClient) -> None:
    encoded = post(client, input=TEXTS, encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in encoded]
    np.testing.assert_array_equal(rows(post(client, input=TEXTS)), decoded)


def test_the_answer_has_openais_form(client: TestClient) -> None:
    answer = post(client, input=["a cat", {"text": "a dog"}]).json()
    assert (answer["object"], answer["model"]) == ("list", NAME)
    assert [(entry["object"], entry["index"]) for entry in answer["data"]] == [("embedding", 0), ("embedding", 1)]


def test_usage_counts_the_tokens_that_are_computed(client: TestClient, opened: Opened) -> None:
    long = "cat " * 1000
    answer = post(client, input=["a cat", long, data_uri(png())]).json()
    assert opened.towers._tokenizer is not None
    tokens = sum(map(len, opened.towers._tokenizer.encode(["a cat", long])))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert tokens < 2 * opened.facts.info.max_length


def test_images_and_texts_may_be_mixed(client: TestClient, opened: Opened) -> None:
    image, text = png("green"), "a green square"
    model = opened.towers.model
    answer = post(client, input=[data_uri(image), text, {"image": base64.b64encode(image).decode()}, {"text": text}])
    expected = np.concatenate([model.embed_images([image]), model.embed_texts([text])])[[0, 1, 0, 1]]
    np.testing.assert_allclose(rows(answer), expected, rtol=0, atol=1e-6)


def test_a_modality_says_what_strings_are(client: TestClient, opened: Opened) -> None:
    image = png("blue")
    as_image = post(client, input=base64.b64encode(image).decode(), modality="image")
    np.testing.assert_allclose(rows(as_image), opened.towers.model.embed_images([image]), rtol=0, atol=1e-6)
    uri = data_uri(image)
    as_text = post(client, input=uri, modality="text")
    np.testing.assert_allclose(rows(as_text), opened.towers.model.embed_texts([uri]), rtol=0, atol=1e-6)


def test_classify_has_the_probabilities_of_a_plain_call(client: TestClient, opened: Opened) -> None:
    images, labels = [png("red"), png("white")], ["red circle", "white star", "green heart"]
    answer = post(client, "/v1/classify", input=list(map(data_uri, images)), labels=labels, template="a {}").json()
    expected = opened.towers.model.classify(images, labels, "a {}")
    found = [entry["probabilities"] for entry in answer["data"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert [entry["label"] for entry in answer["data"]] == [labels[row.argmax()] for row in expected]
    assert answer["labels"] == labels


def test_models(client: TestClient, opened: Opened) -> None:
    listed = client.get("/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == [NAME]
    assert client.get(f"/v1/models/{NAME}").json() == listed["data"][0]
    assert listed["data"][0]["embedding_dim"] == opened.facts.info.embedding_dim


def test_a_name_may_have_a_slash(make_client, opened: Opened) -> None:
    named = replace(opened, facts=replace(opened.facts, name="kakaobrain/align-base"))
    client = make_client(named)
    assert client.get("/v1/models/kakaobrain/align-base").json()["id"] == "kakaobrain/align-base"


def test_metrics_count_requests_and_batches(client: TestClient) -> None:
    post(client, input=TEXTS)
    post(client, input=[])
    client.get("/v1/unknown/abc")
    text = client.get("/metrics").text
    for line in (
        'align_requests_total{path="/v1/embeddings",status="200"} 1.0',
        'align_requests_total{path="/v1/embeddings",status="400"} 1.0',
        'align_requests_total{path="other",status="404"} 1.0',
        'align_batch_size_sum{tower="text"} 3.0',
        "align_waiting_items 0.0",
        "align_waiting_bytes 0.0",
    ):
        assert line in text.splitlines()


def test_one_tower_alone_says_what_it_lacks(make_client, opened: Opened) -> None:
    info = replace(opened.facts.info, towers=("text",))
    client = make_client(replace(opened, facts=replace(opened.facts, info=info)))
    answer = post(client, input=["a cat", data_uri(png())])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert "input[1] needs the vision tower" in answer.json()["error"]["message"]
    assert post(client, input="a cat").status_code == 200


def test_the_openai_client(opened: Opened) -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64), "orange").save(file, "JPEG")
    model = opened.towers.model
    app = application(opened, ServiceOptions(api_keys=("secret",)))
    with running(app) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)
        found = client.embeddings.create(model=NAME, input=TEXTS, user="somebody")
        np.testing.assert_allclose([row.embedding for row in found.data], model.embed_texts(TEXTS), rtol=0, atol=1e-6)
        floats = client.embeddings.create(model=NAME, input=TEXTS[0], encoding_format="float", dimensions=96)
        np.testing.assert_allclose(floats.data[0].embedding, model.embed_texts(TEXTS[:1])[0], rtol=0, atol=1e-6)
        uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        image = client.embeddings.create(model=NAME, input=[uri])
        expected = model.embed_images([file.getvalue()])
        np.testing.assert_allclose([image.data[0].embedding], expected, rtol=0, atol=1e-6)
        assert [entry.id for entry in client.models.list()] == [NAME]
        assert client.models.retrieve(NAME).id == NAME
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="text-embedding-3-small", input="a cat")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as tokens:
            client.embeddings.create(model=NAME, input=[[1, 2, 3]])
        assert "token ids" in tokens.value.message
        with pytest.raises(openai.BadRequestError) as smaller:
            client.embeddings.create(model=NAME, input="a cat", dimensions=32)
        assert smaller.value.param == "dimensions"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()
