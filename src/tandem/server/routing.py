"""Routes as data: what dispatches them also documents them (``openapi.py``) and counts them (metrics labels)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from tandem.server.base import Api, Reply
from tandem.server.errors import NoSuchRoute, WrongMethod
from tandem.server.request import Request

Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True):
    """One method on one path. ``takes`` and ``gives`` are the types of the JSON bodies, ``example`` is a body to try.

    A path may end in one ``{parameter}``, which takes the rest of the path, slashes included. ``open`` routes answer
    without an API key, ``always`` routes also while the process drains. ``media`` is set where no JSON is given.
    """

    method: str
    path: str
    api: Api
    handler: Handler
    summary: str
    takes: Any = None
    gives: Any = None
    example: Any = None
    aliases: tuple[str, ...] = ()
    media: str = "application/json"
    open: bool = False
    always: bool = False
    hidden: bool = False


class Router:
    """Two dictionary look-ups for a plain path; prefixes are searched only when no plain path fits."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._plain: dict[str, dict[str, Route]] = {}
        self._prefixes: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            for path in (route.path, *route.aliases):
                prefix, parameter, _ = path.partition("{")
                table = self._prefixes if parameter else self._plain
                table.setdefault(prefix, {})[route.method] = route

    def find(self, method: str, path: str) -> Route:
        """The route. HEAD finds GET's. Raises NoSuchRoute, or WrongMethod naming those that there are."""
        methods = self._plain.get(path) or self._by_prefix(path)
        if methods is None:
            raise NoSuchRoute(f"nothing is served at {path!r}; /docs lists what is")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = self.allowed(path)
            raise WrongMethod(f"{path!r} takes {', '.join(allowed)}, not {method}", allowed=allowed)
        return route

    def allowed(self, path: str) -> tuple[str, ...]:
        """The methods of a path; none for an unknown path."""
        methods = self._plain.get(path) or self._by_prefix(path) or {}
        return tuple(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))

    def _by_prefix(self, path: str) -> dict[str, Route] | None:
        fitting = (
            table for prefix, table in self._prefixes.items() if len(path) > len(prefix) and path.startswith(prefix)
        )
        return next(fitting, None)


def api_of(path: str) -> Api:
    """Whose shape an error has where no route was found."""
    if path.startswith("/v2/"):
        return Api.COHERE
    return Api.OPENAI if path.startswith(("/v1/", "/embeddings", "/models")) else Api.TEI
