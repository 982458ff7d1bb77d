from __future__ import annotations

import argparse

import pytest

from tandem.bench.options import BenchOptions
from tandem.cli import bench
from tandem.errors import ConfigError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    return parser.parse_args(words)


def test_every_option_of_the_benchmarks_has_a_flag() -> None:
    flags = set(vars(parse("serve"))) - {"kind"}
    assert flags == set(BenchOptions.__struct_fields__)


def test_defaults_are_the_same_on_both_sides() -> None:
    args, options = parse("serve"), BenchOptions()
    same = set(BenchOptions.__struct_fields__) - {"data", "peers", "only"}
    assert {name: getattr(args, name) for name in same} == {name: getattr(options, name) for name in same}


def test_an_unknown_peer_or_part_is_named() -> None:
    with pytest.raises(ConfigError, match="nobody"):
        bench.run(parse("offline", "--peers", "nobody"))
    with pytest.raises(ConfigError, match="lunch"):
        bench.run(parse("serve", "--peers", "none", "--only", "lunch"))
