"""A text's vector does not depend on its company: not on the other texts of its batch, the padding, or its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import built_model
from tandem.models.description import EncoderDescription, LayerSpec, NormPlacement, Positions
from tandem.models.reference import forward
from tandem.types import TokenBatch
from tests.tiny_models import random_weights, tiny

Rows: TypeAlias = NDArray[np.float32]
Run: TypeAlias = Callable[[TokenBatch], Rows]

LONGEST = 24
ENCODERS: dict[str, EncoderDescription] = {
    "post-norm": tiny(changes={"pooling": ("mean", "cls", "last", "max")}),
    "relative": tiny(changes={"relative_buckets": 32, "position_offset": 2, "pooling": ("weightedmean",)}),
    "rotary-local": tiny(
        (LayerSpec(rope_theta=1e4, attention_norm=False), LayerSpec(rope_theta=1e2, window=2)),
        {"positions": Positions.ROTARY, "norm_placement": NormPlacement.PRE, "gated": True, "token_types": 0},
    ),
    "prompted": tiny(changes={"skips_prompt": True, "pooling": ("mean", "cls")}),
}


def on_reference(description: EncoderDescription) -> Run:
    weights = random_weights(description)
    return lambda batch: forward(description, weights, batch)


def on_backend(name: str) -> Callable[[EncoderDescription], Run]:
    def make(description: EncoderDescription) -> Run:
        return BACKENDS.get(name)(built_model(description, random_weights(description)), BackendOptions()).run

    return make


ENGINES = {"reference": on_reference, **{name: on_backend(name) for name in BACKENDS}}


@pytest.fixture(scope="module", params=ENGINES)
def runs(request: pytest.FixtureRequest) -> dict[str, Run]:
    return {name: ENGINES[request.param](description) for name, description in ENCODERS.items()}


def packed(texts: list[tuple[list[int], int]], width: int, padding: int) -> TokenBatch:
    ids = np.full((len(texts), width), padding, np.int32)
    for row, (text, _) in zip(ids, texts, strict=True):
        row[: len(text)] = text
    lengths = np.array([len(text) for text, _ in texts], np.int32)
    return TokenBatch(ids, lengths, np.array([skip for _, skip in texts], np.int32))


texts_with_skips = st.lists(
    st.tuples(st.lists(st.integers(0, 49), min_size=1, max_size=LONGEST), st.integers(0, 5)), min_size=1, max_size=5
)


@pytest.mark.parametrize("encoder", ENCODERS)
@given(texts=texts_with_skips, padding=st.integers(0, 49), extra=st.integers(0, LONGEST), data=st.data())
@settings(max_examples=25)
def test_company_does_not_matter(
    runs: dict[str, Run],
    encoder: str,
    texts: list[tuple[list[int], int]],
    padding: int,
    extra: int,
    data: st.DataObject,
) -> None:
    width = min(LONGEST, max(len(text) for text, _ in texts) + extra)
    order = data.draw(st.permutations(range(len(texts))))
    together = runs[encoder](packed([texts[place] for place in order], width, padding))
    for row, place in zip(together, order, strict=True):
        text, _ = texts[place]
        alone = runs[encoder](packed([texts[place]], len(text), 0))[0]
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=2e-5)
