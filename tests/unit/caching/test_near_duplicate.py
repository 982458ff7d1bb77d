from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.caching.guards import Strictness
from tandem.caching.near_duplicate import NOT_LOOKED, Look, NearDuplicateTier, NearOptions, Query, cosine_of
from tandem.caching.near_sketches import SketchIndex
from tandem.caching.signatures import GivenSigner, StaticSigner
from tandem.errors import ConfigError
from tandem.verification import GuardOptions, LearnerOptions, Promise
from tests.unit.caching.near_pairs import harmful, harmless

DIMS = 16
EAGER = GuardOptions(audit_share=0.2, learn_first=0, learner=LearnerOptions(window=2000, relearn_every=1))
LOOSE = NearOptions(cosine=0.9, promise=Promise(max_error=0.3, confidence=0.8), audit=EAGER)


class Desk:
    """A tier with the cache of rows that stands in front of it, and a model that is a function of the caller's."""

    def __init__(self, options: NearOptions = LOOSE, signer: GivenSigner | StaticSigner | None = None) -> None:
        self.rows: dict[bytes, NDArray[np.float32]] = {}
        signer = signer or GivenSigner(DIMS)
        self.tier = NearDuplicateTier(options, signer, self.rows.get)
        self.computed = 0

    def ask(self, query: Query, row: NDArray[np.float32]) -> Look:
        look = self.tier.look_up(query)
        if look.serve is None:
            key = self.computed.to_bytes(16, "big")
            self.computed += 1
            self.rows[key] = row
            self.tier.learn(query, look, key, row)
        return look

    def threshold(self, tenant: str = "") -> float | None:
        report = self.tier.report(tenant)
        return None if report is None else report.learned.threshold

    def teach(self, rng: np.random.Generator, count: int = 60) -> None:
        """Pairs whose rows are the same and whose signatures are near, so that a threshold is proven."""
        for _ in range(count):
            row = unit(rng)
            for text, noise in (("how warm is the sea", 0.0), ("how warm is the sea?", rng.uniform(0, 0.2))):
                signature = row + np.float32(noise) * unit(rng)
                self.ask(Query(text, [1, 2, 3], signature=signature), row)


def query(text: str | None, signature: NDArray[np.float32], space: str = "", tenant: str = "") -> Query:
    return Query(text, [1, 2, 3], space, tenant, signature)


def unit(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(DIMS).astype(np.float32)


def served(desk: Desk, asked: Query, row: NDArray[np.float32]) -> bool:
    """Whether it is served at the latest after a few tries: some look-ups are audits."""
    return any(desk.ask(asked, row).serve is not None for _ in range(20))


def test_nothing_is_served_before_a_threshold_is_proven() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    row = unit(rng)
    assert desk.ask(query("how warm is the sea", row), row).nearest is None
    look = desk.ask(query("how warm is the sea?", row), row)
    assert look.serve is None
    assert look.nearest is not None
    assert look.audit
    assert "serves nothing" in desk.tier.state()


def test_what_is_proven_is_served_with_its_similarity() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    desk.teach(rng)
    assert desk.threshold() is not None
    row = unit(rng)
    desk.rows[b"the anchor's key"] = row
    asked = query("where is the station", row)
    look = desk.tier.look_up(asked)
    desk.tier.learn(asked, look, b"the anchor's key", row)
    near = row + 0.01 * unit(rng)
    found = next(look for _ in range(20) if (look := desk.tier.look_up(query("where is the station?", near))).serve)
    assert found.serve is not None
    assert found.serve.key == b"the anchor's key"
    assert found.serve.similarity == pytest.approx(cosine_of(row, near), abs=1e-3)
    assert found.would_serve


@pytest.mark.parametrize("strictness", list(Strictness))
def test_no_harmful_pair_is_served_though_all_signatures_are_the_same(strictness: Strictness) -> None:
    pairs = harmful()
    assert len(set(pairs)) >= 300
    desk, rng = Desk(msgspec.structs.replace(LOOSE, strictness=strictness)), np.random.default_rng(0)
    desk.teach(rng)
    count = 0
    for number, (one, other) in enumerate(pairs):
        row, space = unit(rng), f"pair {number}"
        desk.ask(query(one, row, space), row)
        count += desk.tier.look_up(query(other, row, space)).nearest is not None
    assert count == 0
    for number, (one, other) in enumerate(harmless()[:3]):
        row, space = unit(rng), f"harmless {number}"
        desk.ask(query(one, row, space), row)
        assert desk.tier.look_up(query(other, row, space)).nearest is not None, "it is the guard that refused"
    assert desk.tier.statistics()["refused_number"] >= 100


def test_without_its_text_a_row_is_neither_served_nor_kept() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    desk.teach(rng)
    row = unit(rng)
    before = desk.tier.statistics()["anchors"]
    assert not served(desk, query(None, row), row)
    assert desk.tier.statistics()["anchors"] == before


def test_texts_of_another_space_do_not_answer() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    desk.teach(rng)
    row = unit(rng)
    desk.ask(query("where is the station", row, "tenant a"), row)
    assert desk.tier.look_up(query("where is the station?", row, "tenant b")).nearest is None
    assert desk.tier.look_up(query("where is the station?", row, "tenant a")).nearest is not None


def test_what_one_tenant_taught_serves_no_other() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    desk.teach(rng)
    row = unit(rng)
    for tenant in ("", "another"):
        desk.ask(query("where is the station", row, tenant, tenant), row)
    assert served(desk, query("where is the station?", row), row)
    looks = [desk.tier.look_up(query("where is the station?", row, "another", "another")) for _ in range(20)]
    assert all(look.serve is None and look.nearest is not None for look in looks)
    assert desk.tier.report("another") is not None
    assert desk.tier.report("nobody") is None
    assert desk.tier.statistics()["tenants"] == 2


def test_without_a_threshold_a_full_window_ends_the_search_but_for_audits() -> None:
    short = msgspec.structs.replace(EAGER, learner=LearnerOptions(window=50, relearn_every=1))
    desk, rng = Desk(msgspec.structs.replace(LOOSE, audit=short)), np.random.default_rng(0)
    for _ in range(200):
        signature = unit(rng)
        for text in ("a question", "a question?"):
            desk.ask(query(text, signature), unit(rng))
    assert desk.threshold() is None
    row = unit(rng)
    desk.ask(query("where is it", row), row)
    looks = [desk.tier.look_up(query("where is it?", row)) for _ in range(500)]
    assert 60 <= sum(look.audit for look in looks) <= 140, "one in five"
    assert all((look.nearest is not None) is look.audit for look in looks)


def test_what_is_computed_for_others_becomes_an_anchor_and_no_label() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    row = unit(rng)
    desk.rows[b"computed"] = row
    desk.tier.learn(query("where is it", row), NOT_LOOKED, b"computed", row)
    nearest = desk.tier.look_up(query("where is it?", row)).nearest
    assert nearest is not None
    assert nearest.key == b"computed"
    assert desk.tier.statistics()["labels"] == 0


def test_long_texts_are_left_alone() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    row = unit(rng)
    for _ in range(2):
        assert desk.ask(Query("word " * 70, [1] * 70, signature=row), row).nearest is None
    assert desk.tier.statistics()["anchors"] == 0


def test_the_oldest_anchor_goes_first_and_memory_is_bounded() -> None:
    desk, rng = Desk(msgspec.structs.replace(LOOSE, capacity=10)), np.random.default_rng(0)
    rows = [unit(rng) for _ in range(30)]
    for number, row in enumerate(rows):
        desk.ask(query("a question", row, str(number)), row)
        assert desk.tier.statistics()["anchors"] <= 10
    found = [desk.tier.look_up(query("a question", row, str(number))).nearest for number, row in enumerate(rows)]
    assert [one is not None for one in found] == [False] * 20 + [True] * 10
    full = desk.tier.statistics()["bytes"]
    for number in range(50):
        row = unit(rng)
        desk.ask(query("a question", row, str(number)), row)
    assert desk.tier.statistics()["bytes"] == full
    desk.tier.clear()
    assert desk.tier.statistics()["anchors"] == 0


def test_an_anchor_whose_row_is_gone_is_forgotten() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    row = unit(rng)
    desk.ask(query("a question", row), row)
    desk.rows.clear()
    look = desk.tier.look_up(query("a question?", row))
    assert look.nearest is not None
    desk.tier.learn(query("a question?", row), look, b"1" * 16, row)
    assert not desk.tier.forget(look.nearest.key)
    assert desk.tier.statistics()["labelled"] == 0


def test_rows_that_are_not_finite_or_zero_are_no_anchors() -> None:
    desk = Desk()
    zero, wild = np.zeros(DIMS, np.float32), np.full(DIMS, np.nan, np.float32)
    for row in (zero, wild):
        desk.ask(query("a question", np.ones(DIMS, np.float32)), row)
    for signature in (zero, wild, np.full(DIMS, 1e30, np.float32), np.full(DIMS, np.inf, np.float32)):
        desk.ask(query("a question", signature), np.ones(DIMS, np.float32))
    assert desk.tier.statistics()["anchors"] == 0
    assert cosine_of(zero, wild) == -1.0


def test_when_the_promise_breaks_the_tier_says_so_and_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    slow = msgspec.structs.replace(EAGER, learner=LearnerOptions(window=2000, relearn_every=100))
    options = msgspec.structs.replace(LOOSE, audit=slow, promise=Promise(max_error=0.1, confidence=0.8))
    desk, rng = Desk(options), np.random.default_rng(0)
    desk.teach(rng, 120)
    assert desk.threshold() is not None
    alarms = 0.0
    with caplog.at_level(logging.WARNING):
        for _ in range(400):
            signature = unit(rng)
            # The key sees no difference where the model sees two texts that have nothing in common.
            for text in ("a new kind of question", "a new kind of question?"):
                desk.ask(query(text, signature), unit(rng))
            alarms = desk.tier.statistics()["alarms"]
            if alarms:
                break
    assert alarms == 1
    assert desk.threshold() is None
    assert "serving nothing" in caplog.text
    assert "serves nothing" in desk.tier.state()


def test_audits_are_computed_though_they_could_be_served() -> None:
    desk, rng = Desk(), np.random.default_rng(0)
    desk.teach(rng)
    row = unit(rng)
    desk.ask(query("a question", row), row)
    looks = [desk.tier.look_up(query("a question?", row)) for _ in range(500)]
    assert all(look.would_serve for look in looks)
    assert 60 <= sum(look.serve is None for look in looks) <= 140, "one in five"
    assert all(look.audit for look in looks if look.serve is None)
    for look in looks:
        if look.audit:
            desk.tier.learn(query("a question?", row), look, b"its key", row)
    statistics = desk.tier.statistics()
    assert statistics["audited"] >= 60
    assert statistics["audited_error"] == statistics["audited_wrong"] / statistics["audited"] < 0.05
    assert statistics["audited_error"] < statistics["audited_error_bound"] < 0.1


def test_the_static_key_is_learned_first_and_then_finds_what_came_before() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 8)).astype(np.float32)
    mixed = rng.standard_normal((8, DIMS)).astype(np.float32)
    desk = Desk(signer=StaticSigner(table, DIMS, fit_after=40))
    texts = [rng.integers(0, 50, 6).tolist() for _ in range(41)]
    for number, ids in enumerate(texts[:40]):
        assert "still learned" in desk.tier.state()
        assert desk.ask(Query("a question", ids, str(number)), table[ids].mean(axis=0) @ mixed).nearest is None
    for number in range(40, 45):
        desk.ask(Query("a question", texts[40], str(number)), table[texts[40]].mean(axis=0) @ mixed)
    found = desk.tier.look_up(Query("a question?", texts[7], "7")).nearest
    assert found is not None
    assert found.key == (7).to_bytes(16, "big")
    assert found.similarity == pytest.approx(1, abs=1e-3)


def test_a_signature_that_should_have_been_given_is_asked_for() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="handed in"):
        desk.tier.look_up(Query("a question", [1, 2]))
    with pytest.raises(ValueError, match="16"):
        desk.tier.look_up(query("a question", np.ones(DIMS + 1, np.float32)))


def test_options_that_make_no_sense_are_refused() -> None:
    for wrong in ({"cosine": 1.0}, {"cosine": 0.0}, {"capacity": 0}, {"longest": 0}, {"neighbours": 0}, {"tenants": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            msgspec.structs.replace(LOOSE, **wrong)
    with pytest.raises(ConfigError, match="dimensions"):
        NearDuplicateTier(LOOSE, GivenSigner(8), Desk().rows.get, SketchIndex(9, 10))
