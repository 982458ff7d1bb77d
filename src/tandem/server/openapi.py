"""The specification, OpenAPI 3.1, made from the routes and the very types that decode their bodies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from tandem import __version__
from tandem.server.base import Api
from tandem.server.errors import CohereError, OpenAIError, TeiError
from tandem.server.inputs import EXACT
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
    "Vectors have length 1 unless `normalize` is false. A request has at most {items} texts and {size:g} MiB. "
    "Errors have the shape of the API that was asked."
)


class Facts(msgspec.Struct, frozen=True):
    """What is known only when a model is served, and narrows the schemas of its fields."""

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    dims: int
    max_items: int
    max_body_bytes: int


def document(routes: Iterable[Route], facts: Facts) -> Json:
    """The whole document, ready to be encoded as JSON."""
    shown = [route for route in routes if not route.hidden]
    types = [*_body_types(shown), *_ERRORS.values()]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    components = _narrowed(_exact(components), facts)
    for component in components.values():
        component["description"] = _in_words(component.get("description"))
    description = _DESCRIPTION.format(items=facts.max_items, size=round(facts.max_body_bytes / 2**20, 2))
    paths: dict[str, Json] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, facts)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tandem", "version": __version__, "description": description},
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


def _operation(route: Route, schema_of: dict[str, Json], facts: Facts) -> Json:
    name = route.path.strip("/").replace("{", "").replace("}", "").replace("/", "_")
    operation: Json = {
        "operationId": f"{route.method.lower()}_{name}",
        "summary": route.summary,
        "description": _in_words(getattr(route.takes, "__doc__", None)),
        "tags": [(_OPERATIONS if route.always else _TAGS[route.api])[0]],
        "responses": _responses(route, schema_of),
    }
    _, parameter, rest = route.path.partition("{")
    if parameter:
        where = {"name": rest.rstrip("}"), "in": "path", "required": True}
        operation["parameters"] = [{**where, "schema": {"type": "string", "minLength": 1}, "example": facts.models[0]}]
    if route.takes is not None:
        body = {"schema": schema_of[repr(route.takes)], "example": route.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
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


def _exact(node: Any) -> Any:
    """The schema with every ``x-exact`` in the place of what stands around it, its default kept."""
    if isinstance(node, list):
        return [_exact(item) for item in node]
    if not isinstance(node, dict):
        return node
    if EXACT in node:
        return {**node[EXACT], **_kept(node)}
    return {key: _exact(value) for key, value in node.items()}


def _narrowed(components: Json, facts: Facts) -> Json:
    """The request types' fields held to what this server serves."""
    dimensions = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": facts.dims}, {"type": "null"}]}
    known: dict[str, Json] = {
        "model": {"anyOf": [{"enum": list(facts.models)}, {"type": "null"}]},
        "prompt_name": {"anyOf": [*([{"enum": list(facts.prompts)}] if facts.prompts else []), {"type": "null"}]},
        "dimensions": dimensions,
        "output_dimension": dimensions,
    }
    for name, component in components.items():
        if name.endswith("Request"):
            for field, schema in component["properties"].items():
                narrower = known.get(field)
                if narrower:
                    may_be_null = narrower if "default" in schema else narrower["anyOf"][0]
                    component["properties"][field] = {**may_be_null, **_kept(schema)}
    return components


def _kept(schema: Json) -> Json:
    return {key: schema[key] for key in ("description", "default") if key in schema}


def _in_words(text: str | None) -> str:
    """A docstring's first paragraph as Markdown."""
    return " ".join((text or "").split("\n\n", 1)[0].replace("``", "`").split())
