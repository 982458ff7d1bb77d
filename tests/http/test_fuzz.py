"""Random requests from the specification: none gets a 5xx, and every reply is what the specification says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tandem.engine import Engine
from tests.http.conftest import OPTIONS
from tests.http.loopback import loopback

EXAMPLES = 40
OPERATIONS = [
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/embed"),
    ("POST", "/embed_all"),
    ("POST", "/similarity"),
    ("POST", "/tokenize"),
    ("POST", "/decode"),
    ("GET", "/info"),
    ("POST", "/v2/embed"),
    ("GET", "/v1/cache/stats"),
    ("POST", "/v1/cache/clear"),
    ("POST", "/v1/semantic-cache/store"),
    ("POST", "/v1/semantic-cache/lookup"),
    ("POST", "/v1/semantic-cache/feedback"),
    ("DELETE", "/v1/semantic-cache/{namespace}"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]

WITHOUT_BODY = {"/v1/cache/clear"}


@pytest.fixture(scope="module")
def specification(new_engine: Callable[[], Engine]) -> Iterator[Any]:
    """What a real server, with the real engine and tokenizer, says of itself."""
    with loopback(new_engine(), msgspec.structs.replace(OPTIONS, max_batch_items=64)) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


CASES = [
    *((method, path, GenerationMode.POSITIVE) for method, path in OPERATIONS),
    *(
        (method, path, GenerationMode.NEGATIVE)
        for method, path in OPERATIONS
        if method == "POST" and path not in WITHOUT_BODY
    ),
]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_no_request_breaks_the_server_or_its_promises(
    specification: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = specification[path][method]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        without_deadline(case.body)
        # Left out: that a request which fits the schema is accepted. A schema can not say what the tokenizer knows:
        # which ids there are, and how long a text may be.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


def without_deadline(body: Any) -> None:
    """Take out a ``timeout_ms`` that is one: 504 is then the right answer, and when it comes depends on the machine."""
    if isinstance(body, dict):
        if type(given := body.get("timeout_ms")) is int and 1 <= given <= 3_600_000:
            del body["timeout_ms"]
        without_deadline(body.get("parameters"))


def test_every_operation_is_tried(specification: Any) -> None:
    known = {(operation.ok().method.upper(), operation.ok().path) for operation in specification.get_all_operations()}
    assert known == set(OPERATIONS)
