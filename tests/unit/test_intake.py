"""From a request's inputs to token ids, as the engine's callers see it: prompts, lengths, ids, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tandem.admission import EngineOptions
from tandem.backends.fake import FakeOptions
from tandem.errors import InvalidInput, TextTooLong
from tandem.types import Direction, EmbedRequest, Output
from tests.engines import (
    DIMS,
    MAX_TOKENS,
    Device,
    alone,
    asking,
    begin,
    make_engine,
    model_info,
    rows,
    text_tokenizer,
    words,
)


async def test_prompts_by_name_by_text_and_by_default() -> None:
    engine = make_engine(Device(), model=model_info(default_prompt_name="passage"))
    named = rows(await engine.embed(asking(" w1", prompt_name="query")))
    literal = rows(await engine.embed(asking("w1", prompt="w7 w8 ", prompt_name="passage")))
    default = rows(await engine.embed(asking(" w1")))
    none = rows(await engine.embed(asking("w1", prompt="")))
    np.testing.assert_allclose(named[0], alone(words(7, 8, 1)), atol=1e-5)
    np.testing.assert_allclose(literal[0], alone(words(7, 8, 1)), atol=1e-5)
    np.testing.assert_allclose(default[0], alone(words(9, 1)), atol=1e-5)
    np.testing.assert_allclose(none[0], alone(words(1)), atol=1e-5)
    with pytest.raises(InvalidInput, match="'song' is not one of the model's prompts: passage, query") as refused:
        await engine.embed(asking("w1", prompt_name="song"))
    assert refused.value.param == "prompt_name"
    await engine.close()


async def test_a_prompt_that_pooling_leaves_out() -> None:
    engine = make_engine(Device(), tokenizer=text_tokenizer(include_prompt=False))
    skipped = rows(await engine.embed(asking(" w1", prompt_name="query")))[0]
    whole = alone(words(7, 8, 1))
    device = Device(FakeOptions(dims=DIMS))
    tokens = make_engine(device, tokenizer=text_tokenizer(include_prompt=False))
    result = await tokens.embed(asking(" w1", prompt_name="query", output=Output.TOKENS))
    assert isinstance(result.rows, list)
    np.testing.assert_allclose(skipped, result.rows[0][3:].sum(axis=0), atol=1e-5)
    assert not np.allclose(skipped, whole)
    await engine.close()
    await tokens.close()


async def test_over_long_texts() -> None:
    long = words(*range(80))
    engine = make_engine(Device())
    result = await engine.embed(asking(long))
    assert result.token_counts == [MAX_TOKENS]
    np.testing.assert_allclose(rows(result)[0], alone(words(*range(62))), atol=1e-4)
    left = await engine.embed(asking(long, truncation_direction=Direction.LEFT))
    np.testing.assert_allclose(rows(left)[0], alone(words(*range(18, 80))), atol=1e-4)
    with pytest.raises(TextTooLong, match="input 1 has 82 tokens"):
        await engine.embed(asking(words(1), long, truncate=False))
    await engine.close()
    strict = make_engine(Device(), EngineOptions(auto_truncate=False))
    with pytest.raises(TextTooLong):
        await strict.embed(asking(long))
    assert (await strict.embed(asking(long, truncate=True))).token_counts == [MAX_TOKENS]
    await strict.close()


async def test_token_ids_are_the_text_they_stand_for() -> None:
    engine = make_engine(Device())
    (ids,) = text_tokenizer().encode([words(1, 2)], truncate=True).ids
    framed = rows(await engine.embed(EmbedRequest(inputs=[ids, ids[1:-1]])))
    np.testing.assert_allclose(framed, np.stack([alone(words(1, 2))] * 2), atol=1e-5)
    prompted = rows(await engine.embed(EmbedRequest(inputs=[ids], prompt_name="query")))
    np.testing.assert_allclose(prompted[0], alone(words(7, 8, 1, 2)), atol=1e-5)
    await engine.close()


@pytest.mark.parametrize(
    "inputs",
    [
        *([], "", b"w1", [5], [None], [b"w1"], [{"a": 1}], ["w1", 5], ["w1", None], ["w1", ["w1"]], ["\ud800"]),
        *([[]], [[1], []], [[1, 2], "w1"], [[96]], [[-1]], [[1.5]], [[True]], [["w1"]], [[[1]]]),
    ],
    ids=ascii,
)
async def test_bad_inputs_are_told_and_harm_nobody(inputs: Any) -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    fine = await begin(engine, asking(words(1)))
    with pytest.raises(InvalidInput):
        await engine.embed(EmbedRequest(inputs=inputs))
    device.door.set()
    await fine
    assert engine.inflight == 0
    await engine.close()
    assert len(device.computed) == 1
