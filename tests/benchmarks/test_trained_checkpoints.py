"""Checkpoints put together from trained weights: no weight is left random by mistake, and gates are open."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.trained_checkpoints import TEMPERATURE, completed

TRAINED = {"vision_model.embeddings.convolution.weight": (4, 3), "text_model.pooler.dense.weight": (2, 2)}
ABSENT = {
    "temperature": (),
    "text_projection.weight": (3, 2),
    "vision_model.encoder.blocks.0.squeeze_excite.expand.weight": (4, 1),
    "vision_model.encoder.blocks.0.squeeze_excite.expand.bias": (4,),
}


def filled(shapes: dict[str, tuple[int, ...]], value: float) -> dict[str, Tensor]:
    return {key: torch.full(shape, value) for key, shape in shapes.items()}


def test_trained_weights_stay_and_gates_are_1() -> None:
    found = completed(filled(TRAINED | ABSENT, 0.5), filled(TRAINED, 7.0))
    assert set(found) == {*TRAINED, *ABSENT}
    assert all((found[key] == 7).all() for key in TRAINED)
    assert (found["text_projection.weight"] == 0.5).all()
    assert found["temperature"] == pytest.approx(TEMPERATURE)
    gates = found["vision_model.encoder.blocks.0.squeeze_excite.expand.bias"]
    assert (torch.sigmoid(gates) == 1).all()


@pytest.mark.parametrize(
    ("trained", "name"),
    [
        pytest.param({"text_model.pooler.dense.weight": (2, 2)}, "embeddings.convolution", id="missing"),
        pytest.param(TRAINED | {"text_model.other": (1,)}, "text_model.other", id="not known"),
        pytest.param(TRAINED | {"text_model.pooler.dense.weight": (1, 2)}, "pooler.dense", id="another shape"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(trained: dict[str, tuple[int, ...]], name: str) -> None:
    with pytest.raises(ValueError, match=f"1 weights are missing, not known or of another shape: .*{name}"):
        completed(filled(TRAINED | ABSENT, 0.5), filled(trained, 7.0))
