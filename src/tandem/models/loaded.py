"""A model read into memory, as far as every device shares it."""

from __future__ import annotations

import logging
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ModelUnsupported
from tandem.models.description import EncoderDescription, tensor_shapes
from tandem.models.families import describe_folder
from tandem.models.folder import ModelFolder
from tandem.models.own_graph import OwnGraph, find_own_graph
from tandem.models.reference import forward
from tandem.models.sentence_files import Pipeline, read_pipeline
from tandem.models.tokenizer import TextTokenizer
from tandem.models.weights import Weights, load_weights
from tandem.types import TokenBatch

log = logging.getLogger("tandem.models")

OWN_GRAPH = "own graph"
"""The family of a model that is served from its own graph."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """``weights`` are mapped, not read: they cost memory while a backend takes them over.

    ``own_graph``: the repository's own graph, where Tandem does not build the architecture. The description then holds
    what is known of it, no layers, and the weights those of dense heads alone.
    """

    folder: ModelFolder
    pipeline: Pipeline
    description: EncoderDescription
    weights: Weights
    tokenizer: TextTokenizer
    own_graph: OwnGraph | None = None

    @property
    def weights_bytes(self) -> int | None:
        """In fp32; None for a model that is served from its own graph."""
        return None if self.own_graph else 4 * sum(map(prod, tensor_shapes(self.description).values()))

    def reference(self, batch: TokenBatch) -> NDArray[np.float32]:
        """The fp32 reference's rows for a batch, [n, dims], not normalised. Slow: for proofs."""
        return forward(self.description, self.weights, batch)


def load_model(folder: ModelFolder, *, parallel_tokenizer: bool = False) -> LoadedModel:
    """Read what ``folder`` says of itself. Raises ModelBroken and ModelUnsupported."""
    pipeline = read_pipeline(folder)
    description, own_graph = _describe(folder, pipeline)
    return LoadedModel(
        folder=folder,
        pipeline=pipeline,
        description=description,
        own_graph=own_graph,
        weights=load_weights(folder, description),
        tokenizer=TextTokenizer.load(
            folder, pipeline, vocab_size=description.vocab_size or None, parallel=parallel_tokenizer
        ),
    )


def _describe(folder: ModelFolder, pipeline: Pipeline) -> tuple[EncoderDescription, OwnGraph | None]:
    try:
        return describe_folder(folder), None
    except ModelUnsupported as unsupported:
        own = find_own_graph(folder)
        if own is None:
            raise
        config = folder.read_json("config.json") or {}
        log.info("%s; serving the repository's own graph %s", unsupported, own.path.name)
        heads = config.get("num_attention_heads")
        described = EncoderDescription(
            family=OWN_GRAPH,
            vocab_size=_count(config, "vocab_size"),
            hidden=own.hidden,
            heads=heads if isinstance(heads, int) and heads > 0 else max(1, own.hidden // 64),
            intermediate=4 * own.hidden,
            max_positions=_count(config, "max_position_embeddings") or 512,
            layers=(),
            pooling=pipeline.pooling,
            skips_prompt=not pipeline.include_prompt,
            dense=pipeline.dense,
        )
        return described, own


def _count(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else 0
