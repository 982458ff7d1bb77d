"""The specification, OpenAPI 3.1, made from the routes and the very types that decode their bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from tandem import __version__
from tandem.server.base import Api
from tandem.server.errors import CohereError, OpenAIError, TeiError
from tandem.server.routing import Route

Json: TypeAlias = dict[str, Any]

_TAGS = {
    Api.OPENAI: ("OpenAI", "What OpenAI's clients ask for."),
    Api.TEI: ("Text Embeddings Inference", "What clients of text-embeddings-inference and huggingface_hub ask for."),
    Api.COHERE: ("Cohere", "What Cohere's clients ask for, text only."),
}
_OPERATIONS = ("Operations", "Health and metrics.")
_ERRORS: dict[Api, type] = {Api.OPENAI: OpenAIError, Api.TEI: TeiError, Api.COHERE: CohereError}
_DESCRIPTION = (
    "Text embeddings over three APIs at once. Fields that are not listed are ignored; types are strict. "
    "Vectors have length 1 unless `normalize` is false. Errors have the shape of the API that was asked."
)


def document(routes: Iterable[Route]) -> Json:
    """The whole document, ready to be encoded as JSON."""
    shown = [route for route in routes if not route.hidden]
    types = [*_body_types(shown), *_ERRORS.values()]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tandem", "version": __version__, "description": _DESCRIPTION},
        "tags": [{"name": name, "description": text} for name, text in (*_TAGS.values(), _OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Only where the server has API keys."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _body_types(routes: Sequence[Route]) -> list[Any]:
    both = [kind for route in routes for kind in (route.takes, route.gives) if kind is not None]
    return list({repr(kind): kind for kind in both}.values())


def _operation(route: Route, schema_of: dict[str, Json]) -> Json:
    name = route.path.strip("/").replace("{", "").replace("}", "").replace("/", "_")
    operation: Json = {
        "operationId": f"{route.method.lower()}_{name}",
        "summary": route.summary,
        "description": _first_paragraph(route.handler.__doc__),
        "tags": [(_OPERATIONS if route.always else _TAGS[route.api])[0]],
        "responses": _responses(route, schema_of),
    }
    _, parameter, rest = route.path.partition("{")
    if parameter:
        where = {"name": rest.rstrip("}"), "in": "path", "required": True}
        operation["parameters"] = [{**where, "schema": {"type": "string", "minLength": 1}}]
    if route.takes is not None:
        content = {"application/json": {"schema": schema_of[repr(route.takes)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.open:
        operation["security"] = [{}]
    return operation


def _responses(route: Route, schema_of: dict[str, Json]) -> Json:
    error = {"application/json": {"schema": schema_of[repr(_ERRORS[route.api])]}}
    responses: Json = {"default": {"description": "An error", "content": error}}
    if route.gives is not None:
        good = {"application/json": {"schema": schema_of[repr(route.gives)]}}
        responses["200"] = {"description": "The answer", "content": good}
    elif route.media != "application/json":
        responses["200"] = {"description": "The answer", "content": {route.media: {}} if route.media else {}}
    return responses


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n", 1)[0].split())
