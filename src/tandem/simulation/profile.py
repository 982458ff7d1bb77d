"""What a device costs: measured by ``tandem profile``, or derived from published figures and labelled so."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import msgspec

from tandem.batching.base import BatchLimits
from tandem.errors import ConfigError
from tandem.scheduling.cost_model import Cost
from tandem.types import Packing

DERIVED = "-derived"
"""How the name of a profile ends that nobody measured."""


class HostProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server does beside the model, in its event loop's thread, CPU seconds: ``request_s`` from the first byte
    to the queue, ``answer_s`` from the row to the last byte, ``token_s`` more of the first a token, ``batch_s`` a
    batch. ``hand_s``: from one thread to another and back, asleep. ``wake_s``: the most that a thread waits for a core
    when it wakes and all are busy. ``drag``: how much longer batches take on cores that are shared with it than by
    themselves, turns on the cores not counted: their caches are shared too. ``client_s``: a load generator's own, a
    request."""

    request_s: float
    answer_s: float
    token_s: float = 0.0
    batch_s: float = 0.0
    hand_s: float = 0.0
    wake_s: float = 0.0
    drag: float = 1.0
    client_s: float = 0.0

    def __post_init__(self) -> None:
        _not_negative(self)
        if self.drag < 1:
            raise ConfigError(f"a host's drag is 1 or more, got {self.drag}")


class Shape(msgspec.Struct, frozen=True):
    """A batch as the device meets it: padded tokens, sum of squared lengths, texts."""

    padded_tokens: int
    sum_squares: int
    n: int


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``t = cost``, and ``cold_s`` more when a slot's batch has another shape than its last, or when the slot had
    nothing to do for a millisecond and its caches went cold; times a factor drawn from ``residuals``, which are
    quantiles of measured over predicted at even steps, mean 1; over ``speeds[k - 1]`` while k slots run. Beyond their
    number, or with the server on ``cores`` shared with it, all share what there is. ``in_turn``: slots do not compute
    side by side but one after the other, as batches in one queue of a GPU.

    ``name`` ends in ``-derived`` exactly where ``measured`` is false; ``source`` says from what.
    """

    name: str
    device: str
    model: str
    measured: bool
    source: str
    cost: Cost
    slots: int
    speeds: tuple[float, ...]
    packing: Packing
    max_batch_tokens: int
    max_width: int
    residuals: tuple[float, ...] = (1.0,)
    cold_s: float = 0.0
    cores: int = 0
    in_turn: bool = False
    host: HostProfile | None = None
    conditions: dict[str, str] = {}

    def __post_init__(self) -> None:
        _not_negative(self.cost)
        if self.measured == self.name.endswith(DERIVED):
            raise ConfigError(
                f"profile {self.name}: its name must end in {DERIVED} when it was not measured, only then"
            )
        if self.slots < 1 or not self.speeds or min(self.speeds) <= 0:
            raise ConfigError(f"profile {self.name}: it needs a slot and speeds over 0")
        if not self.residuals or min(self.residuals) <= 0 or any(b < a for a, b in pairwise(self.residuals)):
            raise ConfigError(f"profile {self.name}: residuals must be ascending and over 0")
        if self.cost.token_s <= 0 or min(self.max_batch_tokens, self.max_width) < 1:
            raise ConfigError(f"profile {self.name}: a token must cost time, and a batch must hold one")

    @property
    def limits(self) -> BatchLimits:
        return BatchLimits(max_tokens=self.max_batch_tokens, max_width=self.max_width, packing=self.packing)

    @property
    def streams_speed(self) -> float:
        """The most work a second that its slots do together, in units of one that runs alone."""
        if self.in_turn:
            return self.speeds[0]
        return max(running * self.speed(running) for running in range(1, self.slots + 1))

    def speed(self, running: int) -> float:
        """The speed of each slot while so many run."""
        known = len(self.speeds)
        if running <= known:
            return self.speeds[running - 1]
        return self.speeds[-1] * min(1.0, max(known, self.cores) / running)

    def seconds(self, shape: Shape) -> float:
        """The mean time of a batch that runs alone, in the shape of the last and right after it."""
        return self.cost.seconds(shape.padded_tokens, shape.sum_squares, shape.n)


def load_profile(name: str, model: str) -> DeviceProfile:
    """``name`` is a file that ends in .json, else a profile of ``model`` that ships with Tandem. Raises ConfigError."""
    if name.endswith(".json"):
        try:
            return decode(Path(name).read_bytes(), name)
        except OSError as error:
            raise ConfigError(f"profile {name}: {error.strerror}") from error
    known = shipped()
    if model not in known:
        raise ConfigError(f"no profile ships for model {model!r}; there are some for: {', '.join(known)}")
    if name not in known[model]:
        raise ConfigError(
            f"unknown profile {name!r}; known for {model} are: {', '.join(known[model])}; or a file that ends in .json"
        )
    return decode(files(__package__).joinpath("profiles", model, f"{name}.json").read_bytes(), name)


def shipped() -> dict[str, tuple[str, ...]]:
    """Names of the profiles that ship, by model."""
    folder = files(__package__).joinpath("profiles")
    models = sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    return {
        model.name: tuple(sorted(f.name.removesuffix(".json") for f in model.iterdir() if f.name.endswith(".json")))
        for model in models
    }


def decode(data: bytes, place: str) -> DeviceProfile:
    """A profile from its JSON. Raises ConfigError naming ``place`` and what is wrong."""
    try:
        return msgspec.json.decode(data, type=DeviceProfile)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"profile {place}: {error}") from error


def encode(profile: DeviceProfile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"


def _not_negative(values: msgspec.Struct) -> None:
    for name, value in zip(values.__struct_fields__, msgspec.structs.astuple(values), strict=True):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{name} must be 0 or more seconds, got {value}")
