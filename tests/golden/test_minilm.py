"""The default model's real weights against sentence-transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tandem.models.families import describe_folder
from tandem.models.folder import ModelFolder
from tandem.models.weights import load_weights
from tandem.types import Output, TokenBatch
from tests.golden.conftest import LIMIT, Engine, distance

TEXTS = [
    "A man is playing a flute.",
    "",
    "Ünïcödé, 漢字 and emoji 🙂 in one line",
    "retrieval " * 120,
    "What is the boiling point of water at 2,000 m?",
]


@pytest.fixture(scope="module")
def peer(minilm_folder: ModelFolder) -> Any:
    pytest.importorskip("torch")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_folder.path), device="cpu")


def test_rows_are_those_of_sentence_transformers(minilm_folder: ModelFolder, peer: Any, engine: Engine) -> None:
    encoded = peer.tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="np")
    batch = TokenBatch(encoded["input_ids"].astype(np.int32), encoded["attention_mask"].sum(axis=1).astype(np.int32))
    description = describe_folder(minilm_folder)
    found = engine(description, load_weights(minilm_folder, description), Output.POOLED)(batch)
    assert found.shape == (5, 384)
    assert distance(found, peer.encode(TEXTS)) <= LIMIT
