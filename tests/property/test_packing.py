"""Packed rows: no two texts overlap, none is cut, and a text's vector is the one it has alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import built_model
from tandem.batching import BatchLimits, QueueView
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.batching.packing import lay_out, plan_packed
from tandem.models.description import LayerSpec, NormPlacement, Positions
from tandem.models.reference import forward
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import single
from tandem.scheduling.device import DeviceOptions
from tandem.types import Output, Packing, Priority, TokenBatch
from tests.tiny_models import random_weights, tiny

WIDEST = 24
ENCODERS = {
    "learned": tiny(),
    "offset": tiny(changes={"position_offset": 2}),
    "relative": tiny(changes={"relative_buckets": 8, "relative_max_distance": 16}),
    "rotary and windows": tiny(
        (LayerSpec(rope_theta=1e4, attention_norm=False), LayerSpec(rope_theta=1e2, window=2)),
        {"positions": Positions.ROTARY, "norm_placement": NormPlacement.PRE, "gated": True, "token_types": 0},
    ),
    "every pooling": tiny(changes={"pooling": ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")}),
    "prompted": tiny(changes={"skips_prompt": True, "pooling": ("mean", "cls", "weightedmean")}),
}
lengths_of_texts = st.lists(st.integers(1, WIDEST), min_size=1, max_size=40)


@given(lengths_of_texts, st.integers(WIDEST, 200))
def test_a_layout_holds_every_text_whole(lengths: list[int], max_width: int) -> None:
    layout = lay_out(lengths, max_width)
    used = np.zeros((layout.rows, layout.width), int)
    for start, length in zip(layout.starts, lengths, strict=True):
        assert start % layout.width + length <= layout.width <= max_width
        used.ravel()[start : start + length] += 1
    assert used.max() == 1
    assert used.any(axis=1).all()
    assert used.sum() == sum(lengths)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.data())
def test_a_plan_holds_its_anchor_within_the_budget(lengths: list[int], data: st.DataObject) -> None:
    limits = BatchLimits(max_tokens=256, max_width=512, packing=Packing.ROWS)
    anchor = data.draw(st.integers(0, len(lengths) - 1))
    ascending = sorted(lengths)
    view = QueueView(ascending, anchor, sum(lengths), data.draw(st.integers(1, 3)), packs=True)
    plan = plan_packed(view, limits)
    assert plan.start <= anchor < plan.stop
    assert plan.n == 1 or sum(ascending[plan.start : plan.stop]) <= limits.max_tokens
    assert limits.bound(plan, view) == plan


@pytest.mark.parametrize("engine", list(BACKENDS))
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_text_does_not_see_its_neighbours(encoder: str, engine: str) -> None:
    description = ENCODERS[encoder]
    weights = random_weights(description)
    backend = BACKENDS.get(engine)(built_model(description, weights), BackendOptions())
    assert backend.packing is not Packing.ONE_A_ROW

    @settings(max_examples=15)
    @given(lengths_of_texts, st.integers(0, 1000))
    def packed_equals_alone(lengths: list[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        layout = lay_out(lengths, WIDEST)
        flat = np.zeros(layout.rows * layout.width, np.int32)
        for start, length in zip(layout.starts, lengths, strict=True):
            flat[start : start + length] = rng.integers(0, 50, length)
        batch = TokenBatch(
            ids=flat.reshape(layout.rows, layout.width),
            lengths=np.array(lengths, np.int32),
            places=np.array(layout.starts, np.int32),
            skips=rng.integers(0, 6, len(lengths)).astype(np.int32) if description.skips_prompt else None,
        )
        np.testing.assert_allclose(backend.run(batch), forward(description, weights, batch), rtol=1e-3, atol=2e-4)

    packed_equals_alone()


def test_short_texts_leave_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 20, 64).tolist()
    layout = lay_out(lengths, 256)
    assert sum(lengths) > 0.9 * layout.rows * layout.width
    assert layout.width % 32 == 0


@pytest.mark.parametrize(("length", "width"), [(3, 16), (11, 16), (17, 24), (33, 40), (65, 96), (250, 256)])
def test_texts_alone_have_few_shapes(length: int, width: int) -> None:
    assert lay_out([length], 256).width == width


def test_a_row_is_never_wider_than_the_model() -> None:
    assert lay_out([3], 10).width == 10
    assert lay_out([9, 9, 9], 10).width <= 10


@given(st.lists(st.integers(1, 64), min_size=1, max_size=400))
def test_token_rows_are_not_packed_and_keep_the_budget_with_their_padding(lengths: list[int]) -> None:
    limits = BatchLimits(max_tokens=256, max_width=64, packing=Packing.ROWS)
    core = single(MemoryAwarePolicy(limits), DeviceOptions(limits=limits))
    loop = asyncio.new_event_loop()
    group = Group(len(lengths), loop.create_future(), Priority.NORMAL, Output.TOKENS)
    core.add([Item(group, index, [7] * length, 0) for index, length in enumerate(lengths)], 0.0)
    seen = 0
    device = core.devices[0]
    while (batch := core.next(device, 0.0)) is not None:
        arrays = device.arrays(batch, 0)
        assert arrays.ids.shape[0] == len(batch.items)
        assert len(batch.items) == 1 or arrays.ids.size <= limits.max_tokens
        seen += len(batch.items)
    assert seen == len(lengths)
    loop.close()
