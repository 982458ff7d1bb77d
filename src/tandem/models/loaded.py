"""A model read into memory, as far as every device shares it."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.models.description import EncoderDescription
from tandem.models.families import describe_folder
from tandem.models.folder import ModelFolder
from tandem.models.reference import forward
from tandem.models.sentence_files import Pipeline, read_pipeline
from tandem.models.tokenizer import TextTokenizer
from tandem.models.weights import Weights, load_weights
from tandem.types import TokenBatch


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """``weights`` are mapped, not read: they cost memory while a backend takes them over."""

    folder: ModelFolder
    pipeline: Pipeline
    description: EncoderDescription
    weights: Weights
    tokenizer: TextTokenizer

    def reference(self, batch: TokenBatch) -> NDArray[np.float32]:
        """The fp32 reference's rows for a batch, [n, dims], not normalised. Slow: for proofs."""
        return forward(self.description, self.weights, batch)


def load_model(folder: ModelFolder, *, parallel_tokenizer: bool = False) -> LoadedModel:
    """Read what ``folder`` says of itself. Raises ModelBroken and ModelUnsupported."""
    pipeline = read_pipeline(folder)
    description = describe_folder(folder)
    return LoadedModel(
        folder=folder,
        pipeline=pipeline,
        description=description,
        weights=load_weights(folder, description),
        tokenizer=TextTokenizer.load(folder, pipeline, vocab_size=description.vocab_size, parallel=parallel_tokenizer),
    )
