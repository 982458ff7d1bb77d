"""The bodies of text-embeddings-inference's API, as its router (router/src/http/types.rs) reads and writes them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tandem.server.inputs import (
    AnyInputs,
    Dimensions,
    IdLists,
    Inputs,
    OwnFields,
    PromptName,
    Text,
    TextOrTexts,
    Texts,
    Truncate,
)
from tandem.types import Direction

# TEI writes "Left" and "Right"; huggingface_hub's client sends "left" and "right".
DirectionName: TypeAlias = Literal["Left", "Right", "left", "right"]


class Truncation(OwnFields, kw_only=True):
    """How an over-long text is cut, and Tandem's own fields."""

    truncate: Truncate = None
    truncation_direction: Annotated[DirectionName, Meta(description="The end that is cut.")] = "Right"

    def direction(self) -> Direction:
        """The end to cut at."""
        return Direction(self.truncation_direction.lower())


class TeiEmbedRequest(Truncation, kw_only=True):
    """What TEI's clients send, and Tandem's own fields."""

    inputs: Inputs
    dimensions: Dimensions = None
    encoding_format: Annotated[Literal["float"] | None, Meta(description="Only float in this API.")] = None


class TeiEmbedAllRequest(Truncation, kw_only=True):
    """One vector a token."""

    inputs: Inputs


class SimilaritySentences(msgspec.Struct, kw_only=True):
    """One sentence, and those it is compared with."""

    source_sentence: Text
    sentences: Texts


class TeiSimilarityRequest(Truncation, kw_only=True):
    """Cosine similarity of one sentence with others. ``parameters``, as TEI has them, win over fields beside them."""

    inputs: SimilaritySentences
    parameters: Truncation | None = None


class TeiRootRequest(Truncation, kw_only=True):
    """``POST /`` takes what ``/embed`` takes, or what ``/similarity`` does: clients of both post to a base URL."""

    inputs: AnyInputs | SimilaritySentences
    dimensions: Dimensions = None
    encoding_format: Annotated[Literal["float"] | None, Meta(description="Only float in this API.")] = None
    parameters: Truncation | None = None


class TeiTokenizeRequest(msgspec.Struct, kw_only=True):
    """Texts to cut into tokens."""

    inputs: TextOrTexts
    add_special_tokens: Annotated[bool, Meta(description="Show those that the model adds.")] = True
    prompt_name: PromptName = None


class TeiDecodeRequest(msgspec.Struct, kw_only=True):
    """Token ids to read back as text."""

    ids: IdLists
    skip_special_tokens: Annotated[bool, Meta(description="Leave out those that the model adds.")] = True


class TeiPooling(msgspec.Struct):
    """How token vectors become one."""

    pooling: str


class TeiModelType(msgspec.Struct):
    """The kind of model: always embedding."""

    embedding: TeiPooling


class TeiInfo(msgspec.Struct, kw_only=True):
    """What is served, as ``/info`` tells it; the last fields are Tandem's own."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None
    dimensions: int
    device: str
    tier: str
    prompts: list[str]
