"""The client of graphs, against a real server that runs the same files."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from align_runtime import BackendUnavailableError, BundleError, ConfigurationError, DeviceError, InputError
from align_runtime.golden import Golden
from align_runtime.image_options import ImageOptions
from align_serving.triton import ClientOptions, connect
from align_serving.triton.transport import PROTOCOLS
from support.triton_server import TritonServer, free_ports

grpc = pytest.importorskip("tritonclient.grpc")
LIMIT = 5e-5


@pytest.fixture
def client_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """What a client needs of the bundle: no graphs."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("align.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny_bundle / name).read_bytes())
    return folder


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_golden_embeddings(server: TritonServer, client_bundle: Path, golden_rows: Golden, protocol: str) -> None:
    with connect(getattr(server, protocol), client_bundle, ClientOptions(protocol=protocol)) as model:
        texts, images = model.embed_texts(golden_rows.texts), model.embed_images(golden_rows.images)
        assert (model.info.device, model.info.embedding_dim) == (f"Triton at {getattr(server, protocol)}", 96)
        assert model.info.precision == "fp32 and fp32_cpu"
        np.testing.assert_allclose(texts, golden_rows.text_embeds, rtol=0, atol=LIMIT)
        np.testing.assert_allclose(images, golden_rows.image_embeds, rtol=0, atol=LIMIT)
        assert model.classify(golden_rows.images[:2], ["a cat", "a dog"]).shape == (2, 2)
        with pickle.loads(pickle.dumps(model)) as copy:
            np.testing.assert_allclose(copy.embed_texts(golden_rows.texts[:2]), texts[:2], rtol=0, atol=1e-6)
    with pytest.raises(ConfigurationError, match="closed"):
        model.embed_texts(["a cat"])


@pytest.mark.triton
def test_an_input_that_cannot_be_used(server: TritonServer, client_bundle: Path, golden_rows: Golden) -> None:
    with connect(server.grpc, client_bundle) as model:
        rows = model.embed_images([golden_rows.images[0], b"no image", golden_rows.images[1]], on_error="skip")
        assert (rows.indices.tolist(), [error.index for error in rows.errors]) == ([0, 2], [1])
        with pytest.raises(InputError) as caught:
            model.embed_texts(["a cat", "\ud800"])
        assert caught.value.index == 1


@pytest.mark.triton
def test_a_model_that_is_unloaded_meanwhile(server: TritonServer, client_bundle: Path, golden_rows: Golden) -> None:
    control = grpc.InferenceServerClient(server.grpc)
    with connect(server.grpc, client_bundle, ClientOptions(towers=("vision",))) as model:
        control.unload_model("align_vision_tower")
        often = golden_rows.images[:1] * 100  # the model may take a few more while it goes
        with pytest.raises(DeviceError, match=f"Triton at {server.grpc}: .*align_vision_tower"):
            model.embed_images(often, batch_size=1)
        control.load_model("align_vision_tower")
        assert model.embed_images(golden_rows.images[:1]).shape == (1, 96)


@pytest.mark.triton
def test_options(server: TritonServer, client_bundle: Path) -> None:
    options = ClientOptions(towers=("text",), version="1", images=ImageOptions(alpha="white"))
    with connect(server.grpc, client_bundle, options) as model:
        assert (model.info.towers, model.info.image_options.alpha) == (("text",), "white")
        assert model.embed_texts(["a cat"]).shape == (1, 96)
    with pytest.raises(ConfigurationError, match="version is not|not found|not ready|unknown model"):
        connect(server.grpc, client_bundle, ClientOptions(version="9"))
    with pytest.raises(ConfigurationError, match="other_vision_tower"):
        connect(server.http, client_bundle, ClientOptions(name="other", protocol="http"))


@pytest.mark.triton
def test_a_bundle_with_another_tokenizer_is_refused(server: TritonServer, client_bundle: Path) -> None:
    manifest = client_bundle / "align.json"
    text = manifest.read_text(encoding="utf-8")
    assert '"max_length": 32' in text
    manifest.write_text(text.replace('"max_length": 32', '"max_length": 30'), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="align_text_tower takes other inputs than"):
        connect(server.grpc, client_bundle)
    connect(server.grpc, client_bundle, ClientOptions(towers=("vision",))).close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server(client_bundle: Path, protocol: str) -> None:
    (port,) = free_ports(1)
    with pytest.raises(BackendUnavailableError, match=f"Triton at 127.0.0.1:{port}"):
        connect(f"127.0.0.1:{port}", client_bundle, ClientOptions(protocol=protocol, timeout=5))


def test_wrong_calls(client_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="protocol is 'tcp'; known: grpc, http"):
        connect("127.0.0.1:1", client_bundle, ClientOptions(protocol="tcp"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="towers"):
        connect("127.0.0.1:1", client_bundle, ClientOptions(towers=("audio",)))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="does not exist"):
        connect("127.0.0.1:1", tmp_path / "nothing")
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'align-onnx\[triton\]'"):
        connect("127.0.0.1:1", client_bundle)
