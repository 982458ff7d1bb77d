"""Keys: equal where rows are equal, different where anything differs that a row depends on."""

from __future__ import annotations

import itertools

import pytest

from tandem.caching.aliases import Aliases
from tandem.caching.keys import Context, KeyMaker, KeySpace
from tandem.types import Direction

SPACE = KeySpace(model="f00d", tier="fp32")


def maker(**changes: str) -> KeyMaker:
    return KeyMaker(KeySpace(model=changes.get("model", "f00d"), tier=changes.get("tier", "fp32")))


def test_a_key_is_16_bytes_and_always_the_same() -> None:
    keys = maker().texts(Context(), ["a", "b", "a"])
    assert [len(key) for key in keys] == [16] * 3
    assert keys[0] == keys[2] != keys[1]
    assert maker().texts(Context(), ["a"]) == keys[:1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *itertools.combinations(
            [
                (maker(), Context(), "a"),
                (maker(model="beef"), Context(), "a"),
                (maker(tier="bf16"), Context(), "a"),
                (maker(), Context(tenant="t"), "a"),
                (maker(), Context(prompt="t"), "a"),
                (maker(), Context(truncate=False), "a"),
                (maker(), Context(direction=Direction.LEFT), "a"),
                (maker(), Context(), "A"),
                (maker(), Context(), "a "),
                (maker(), Context(tenant="at"), ""),
                (maker(), Context(tenant="a", prompt="t"), ""),
                (maker(), Context(prompt="at"), ""),
            ],
            2,
        )
    ],
)
def test_nothing_reads_like_anything_else(
    one: tuple[KeyMaker, Context, str], other: tuple[KeyMaker, Context, str]
) -> None:
    assert one[0].texts(one[1], [one[2]]) != other[0].texts(other[1], [other[2]])


def test_tokens_differ_by_ids_tenant_and_skips() -> None:
    found = [
        *maker().tokens("", [[1, 2], [12], [1, 2, 0]]),
        *maker().tokens("t", [[1, 2]]),
        *maker().tokens("", [[1, 2]], [1]),
        *maker(model="beef").tokens("", [[1, 2]]),
        *maker().texts(Context(), ["\x01\x00\x00\x00\x02\x00\x00\x00"]),
    ]
    assert len(set(found)) == len(found)
    assert maker().tokens("", [[1, 2]], [0]) == found[:1]


def test_many_prompts_of_callers_cost_no_memory() -> None:
    keys = maker()
    first = keys.texts(Context(prompt="0"), ["a"])
    for number in range(1000):
        keys.texts(Context(prompt=str(number)), ["a"])
    assert keys.texts(Context(prompt="0"), ["a"]) == first
    assert len(keys._begun) <= 256


def test_a_namespace_stands_for_model_and_tier() -> None:
    spaces = [SPACE, KeySpace(model="beef", tier="fp32"), KeySpace(model="f00d", tier="bf16")]
    assert len({space.namespace() for space in spaces}) == 3
    assert len(SPACE.namespace()) == 8


def test_aliases_are_bounded_and_the_oldest_goes() -> None:
    aliases = Aliases(2)
    aliases.put(b"a", b"1")
    aliases.put(b"b", b"1")
    aliases.put(b"a", b"2")  # renewed, so b is the oldest
    aliases.put(b"c", b"3")
    assert (aliases.get(b"a"), aliases.get(b"b"), aliases.get(b"c")) == (b"2", None, b"3")
    aliases.put(b"d", b"d")
    assert aliases.get(b"d") is None, "a key is no alias of itself"
    none = Aliases(0)
    none.put(b"a", b"1")
    assert len(none) == 0
