"""What callers may ask for. Each refusal names the field and what would do. Sizes are refused before work is done."""

from __future__ import annotations

import math

import numpy as np

from tandem.errors import InvalidInput, PayloadTooLarge
from tandem.semantic.base import Item, Namespace, SemanticOptions, Vector
from tandem.verification import Promise

MAX_NAME_CHARS = 200
"""Of a namespace, a tenant, an entry's id."""

MIN_ERROR, MAX_ERROR = 1e-4, 0.9
MIN_CONFIDENCE, MAX_CONFIDENCE = 0.5, 0.9999
"""Of a promise."""


def namespace(given: Namespace) -> None:
    """Raises InvalidInput."""
    _name(given.name, "namespace")
    for part in (given.tenant, given.model):
        if len(part) > MAX_NAME_CHARS:
            raise InvalidInput(f"tenant and model have at most {MAX_NAME_CHARS} characters", param="namespace")
        _utf8(part, "namespace")


def item(given: Item, options: SemanticOptions) -> None:
    """Everything but the vector. Raises InvalidInput, PayloadTooLarge."""
    size = len(given.payload)
    if size == 0:
        raise InvalidInput("payload must be JSON, got nothing", param="payload")
    if size > options.max_payload_bytes:
        raise PayloadTooLarge(
            f"payload has {size:,} bytes, over the limit of {options.max_payload_bytes:,}", param="payload"
        )
    text(given.text, options)
    if given.id is not None:
        _name(given.id, "id")
    if given.ttl_s is not None and not 0 < given.ttl_s <= options.max_ttl_s:
        raise InvalidInput(
            f"ttl_s must be over 0 and at most {options.max_ttl_s:.0f}, got {given.ttl_s}", param="ttl_s"
        )


def text(given: str | None, options: SemanticOptions) -> None:
    """Raises InvalidInput, PayloadTooLarge."""
    if given is not None and len(_utf8(given, "text")) > options.max_text_bytes:
        raise PayloadTooLarge(f"text is over the limit of {options.max_text_bytes:,} bytes", param="text")


def fits(size: int, options: SemanticOptions) -> None:
    """Whether an entry of ``size`` bytes may be there at all. Raises PayloadTooLarge."""
    if size > options.budget_bytes:
        raise PayloadTooLarge(
            f"an entry of {size:,} bytes does not fit into the cache's {options.budget_bytes:,}", param="payload"
        )


def dims(given: int, held: int | None, options: SemanticOptions) -> None:
    """Of a vector, and of those that its namespace holds, None for a new one. Raises InvalidInput."""
    if not 1 <= given <= options.max_dims:
        raise InvalidInput(f"vector must be a list of 1 to {options.max_dims} numbers, got {given}", param="vector")
    if held is not None and given != held:
        raise InvalidInput(f"vector has {given} dimensions, but the namespace holds vectors of {held}", param="vector")


def vector(given: Vector, held: int | None, options: SemanticOptions) -> Vector:
    """``given`` as float32 [d], contiguous and of length 1. ``held``: as of ``dims``.

    Raises InvalidInput for another shape, another d, numbers that are not finite and a vector without direction.
    """
    if given.ndim != 1:
        raise InvalidInput(f"vector must be a list of numbers, got shape {list(given.shape)}", param="vector")
    dims(given.size, held, options)
    wide = given.astype(np.float64)
    length = float(np.sqrt(wide @ wide))
    if not math.isfinite(length):
        raise InvalidInput("vector has numbers that are not finite", param="vector")
    if length < 1e-30:
        raise InvalidInput("vector is all zeros: it has no direction to compare", param="vector")
    return np.ascontiguousarray(wide / length, np.float32)


def k(given: int, options: SemanticOptions) -> None:
    """Raises InvalidInput."""
    if not 1 <= given <= options.max_k:
        raise InvalidInput(f"k must be from 1 to {options.max_k}, got {given}", param="k")


def promise(given: Promise) -> None:
    """Raises InvalidInput. A share so small that no number of labels proves it, or a confidence that is none, is not
    worth a guard; and no count of labels can be told for them."""
    if not MIN_ERROR <= given.max_error <= MAX_ERROR:
        raise InvalidInput(
            f"max_error must be from {MIN_ERROR:g} to {MAX_ERROR:g}, got {given.max_error:g}", param="max_error"
        )
    if not MIN_CONFIDENCE <= given.confidence <= MAX_CONFIDENCE:
        raise InvalidInput(
            f"confidence must be from {MIN_CONFIDENCE:g} to {MAX_CONFIDENCE:g}, got {given.confidence:g}",
            param="confidence",
        )


def threshold(given: float) -> None:
    """Raises InvalidInput; NaN is caught as no comparison with it holds."""
    if not -1 <= given <= 1:
        raise InvalidInput(f"threshold is a cosine from -1 to 1, got {given}", param="threshold")


def _name(given: str, param: str) -> None:
    if not 1 <= len(given) <= MAX_NAME_CHARS:
        raise InvalidInput(f"{param} must have 1 to {MAX_NAME_CHARS} characters, got {len(given)}", param=param)
    _utf8(given, param)
    if any(ord(char) < 32 for char in given):
        raise InvalidInput(f"{param} has control characters", param=param)


def _utf8(given: str, param: str) -> bytes:
    try:
        return given.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{param} has half a surrogate pair, which is no text", param=param) from None
