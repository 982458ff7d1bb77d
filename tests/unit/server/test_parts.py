"""The server's small parts, each alone: inputs, errors, routes, keys, readiness, the specification."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import cast

import pytest

from tandem import errors
from tandem.clock import ManualClock
from tandem.errors import BackendFailed, ConfigError, InvalidInput, NotReady, TandemError, Unauthorized
from tandem.server import errors as server_errors
from tandem.server.auth import ApiKeys, read_keys
from tandem.server.base import Api, Reply, Service
from tandem.server.errors import EmptyInput, NoSuchRoute, TooManyItems, WrongMethod, render, status_of
from tandem.server.inputs import AnyInputs, as_inputs
from tandem.server.readiness import Readiness
from tandem.server.request import Request
from tandem.server.routing import Route, Router

# --- inputs


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_inputs_become_one_list(given: AnyInputs, expected: object) -> None:
    assert as_inputs(given, param="input", max_items=2) == expected


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("", EmptyInput, "`input` is empty"),
        ([], EmptyInput, "`input` is empty"),
        (["a", ""], EmptyInput, "`input[1]` is empty"),
        ([[1], []], EmptyInput, "`input[1]` is empty"),
        (["a"] * 3, TooManyItems, "3 items; at most 2"),
        ([[1]] * 3, TooManyItems, "3 items; at most 2"),
        (["a", 1], InvalidInput, "mixes"),
    ],
)
def test_inputs_that_are_none(given: AnyInputs, error: type[TandemError], says: str) -> None:
    with pytest.raises(error) as raised:
        as_inputs(given, param="input", max_items=2)
    assert says in str(raised.value)


def test_a_single_text_may_have_more_tokens_than_a_request_has_items() -> None:
    assert as_inputs([1, 2, 3], param="input", max_items=2) == [[1, 2, 3]]


# --- errors


def _errors() -> list[BaseException]:
    """One of every class of the tree and of the server's own branch, and one stranger."""
    modules = [errors, server_errors]
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    made: list[BaseException] = [
        kind("x", allowed=["GET"]) if kind is WrongMethod else kind("x")
        for kind in kinds
        if issubclass(kind, TandemError)
    ]
    return [*made, ZeroDivisionError("x")]


@pytest.mark.parametrize("api", Api)
def test_every_error_has_a_status_and_a_body_in_every_api(api: Api) -> None:
    for error in _errors():
        reply = render(error, api, "req-1")
        assert 400 <= reply.status < 600, error
        assert reply.status == status_of(error, api)
        assert isinstance(json.loads(reply.body), dict)


@pytest.mark.parametrize("api", Api)
def test_an_error_outside_the_tree_tells_nothing_but_the_id(api: Api) -> None:
    body = render(ZeroDivisionError("secret"), api, "req-1").body
    assert b"secret" not in body
    assert b"req-1" in body


def test_a_service_error_is_never_told_as_the_callers_fault() -> None:
    for error in _errors():
        if isinstance(error, errors.ServiceError):
            assert status_of(error, Api.OPENAI) in (429, 500, 503, 504), error


# --- routes


async def _nothing(request: Request) -> Reply:
    return Reply(b"")


ROUTER = Router(
    [
        Route("GET", "/a", Api.TEI, _nothing, "a", aliases=("/b",)),
        Route("POST", "/a", Api.TEI, _nothing, "a"),
        Route("GET", "/models/{model}", Api.OPENAI, _nothing, "one"),
        Route("GET", "/models", Api.OPENAI, _nothing, "all"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/a", "/a"),
        ("HEAD", "/a", "/a"),
        ("GET", "/b", "/a"),
        ("GET", "/models", "/models"),
        ("GET", "/models/x/y", "/models/{model}"),
    ],
)
def test_routes_are_found(method: str, path: str, found: str) -> None:
    assert ROUTER.find(method, path).path == found


@pytest.mark.parametrize("path", ["/", "/A", "/a/", "/models/", "/modelsx"])
def test_near_misses_are_not(path: str) -> None:
    with pytest.raises(NoSuchRoute):
        ROUTER.find("GET", path)


def test_a_wrong_method_names_the_right_ones() -> None:
    with pytest.raises(WrongMethod) as raised:
        ROUTER.find("PUT", "/a")
    assert raised.value.allowed == ("GET", "HEAD", "POST")


# --- keys


def test_keys_come_from_a_file_without_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# for the indexer\n k-one \n\nk-two\n", "utf-8")
    keys = ApiKeys(read_keys(file))
    keys.check({b"x-api-key": b"k-one"})
    keys.check({b"authorization": b"Bearer k-two"})
    with pytest.raises(Unauthorized):
        keys.check({b"x-api-key": b"# for the indexer"})


def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n", "utf-8")
    with pytest.raises(ConfigError, match="holds no key"):
        read_keys(tmp_path / "keys")
    with pytest.raises(ConfigError, match="can not be read"):
        read_keys(tmp_path / "missing")


def test_no_keys_ask_for_none() -> None:
    assert not ApiKeys(())


# --- readiness


class ProbedService:
    """An engine of which only the probe matters."""

    def __init__(self) -> None:
        self.probes = 0
        self.failure: TandemError | None = None

    async def probe(self) -> None:
        self.probes += 1
        if self.failure is not None:
            raise self.failure

    def readiness(self) -> tuple[bool, str]:
        return True, ""


@pytest.fixture
def service() -> ProbedService:
    return ProbedService()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def readiness(service: ProbedService, clock: ManualClock) -> Readiness:
    return Readiness(cast("Service", service), clock, 9.0)


def test_nothing_is_ready_before_the_start(readiness: Readiness) -> None:
    with pytest.raises(NotReady):
        readiness.require_started()
    assert readiness.state()[0] is False
    readiness.started()
    readiness.require_started()
    assert readiness.state()[0] is True


async def test_a_request_that_succeeded_saves_the_probe(
    readiness: Readiness, service: ProbedService, clock: ManualClock
) -> None:
    readiness.started()
    clock.advance(2.9)
    await readiness.check()
    assert service.probes == 0
    clock.advance(0.2)
    await readiness.check()
    assert service.probes == 1
    clock.advance(8.9)
    assert readiness.state()[0] is True


async def test_without_a_forward_pass_the_interval_runs_out(
    readiness: Readiness, service: ProbedService, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    readiness.started()
    service.failure = BackendFailed("the device is gone")
    for _ in range(4):
        clock.advance(3.0)
        await readiness.check()
    ready, reason = readiness.state()
    assert not ready
    assert "12.0 s" in reason
    assert "the device is gone" in reason
    assert len(caplog.records) == 1, "one line, not one a probe"
    service.failure = None
    await readiness.check()
    assert readiness.state()[0] is True
