"""TextTokenizer over small tokenizers of every kind; tests/golden compares it with transformers on real ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from tandem.errors import InvalidInput, TextTooLong
from tandem.models.tokenizer import Piece, TextTokenizer, TokenizerOptions
from tandem.types import Direction
from tests.made_tokenizers import KINDS, SENTENCES, wordpiece

TEXT = " ".join(SENTENCES)


def make(tokenizer: Tokenizer, max_tokens: int = 32, **options: Any) -> TextTokenizer:
    return TextTokenizer(tokenizer, TokenizerOptions(max_tokens=max_tokens, **options))


def oracle(kind: str, texts: list[str], max_tokens: int, direction: Direction) -> list[list[int]]:
    """The library's own truncation of the whole texts."""
    tokenizer = KINDS[kind]()
    tokenizer.enable_truncation(max_tokens, direction=direction.value)
    return [tokenizer.encode(text).ids for text in texts]


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode([text], truncate=True).ids[0]


# Encoding


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("kind", KINDS)
def test_truncation_is_the_librarys(kind: str, direction: Direction) -> None:
    texts = ["", "one", *SENTENCES, TEXT, TEXT * 20]
    for limit in (5, 32, 200):
        encoded = make(KINDS[kind](), limit).encode(texts, truncate=True, direction=direction)
        assert encoded.ids == oracle(kind, texts, limit, direction)
        assert encoded.skips is None


def test_special_tokens_stay_at_both_ends() -> None:
    tokenizer = make(wordpiece(), 6)
    for direction in Direction:
        (row,) = tokenizer.encode([TEXT], truncate=True, direction=direction).ids
        assert (len(row), row[0], row[-1]) == (6, 2, 3)


def test_a_long_list_is_its_texts_one_by_one() -> None:
    tokenizer = make(wordpiece())
    texts = [f"{i} {SENTENCES[i % len(SENTENCES)]}" for i in range(200)]
    assert tokenizer.encode(texts, truncate=True).ids == [ids(tokenizer, text) for text in texts]


def test_an_empty_list_gives_no_rows() -> None:
    assert make(wordpiece()).encode([], truncate=True).ids == []


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_a_long_text_among_short_ones_changes_none_of_them(prompt: str) -> None:
    tokenizer = make(wordpiece())
    texts = ["one", TEXT * 10, "", "two"]
    alone = [tokenizer.encode([text], prompt=prompt, truncate=True).ids[0] for text in texts]
    assert tokenizer.encode(texts, prompt=prompt, truncate=True).ids == alone


def test_too_long_names_index_count_and_limit() -> None:
    tokenizer = make(wordpiece(), 10)
    long = "the lighthouse keeper writes the weather down every evening"
    count = len(wordpiece().encode(long).ids)
    with pytest.raises(TextTooLong, match=rf"input 1 has {count} tokens, .*the limit is 10"):
        tokenizer.encode(["short", long], truncate=False)


def test_too_long_by_far_is_refused_without_being_counted() -> None:
    with pytest.raises(TextTooLong, match="input 0 has more than 10 tokens"):
        make(wordpiece(), 10).encode([TEXT * 10], truncate=False)


def test_a_long_text_of_few_tokens_is_not_too_long() -> None:
    tokenizer = make(wordpiece(), 10)
    assert tokenizer.encode(["one" + " " * 5000 + "two"], truncate=False).ids == [ids(tokenizer, "one two")]


def test_a_text_of_exactly_the_limit_passes() -> None:
    row = wordpiece().encode("the weather").ids
    assert make(wordpiece(), len(row)).encode(["the weather"], truncate=False).ids == [row]


def test_nul_is_a_character() -> None:
    assert make(wordpiece()).encode(["a\0b", "\0"], truncate=True).ids[1] == [2, 3]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "ab\ud800c"], r"input 1: U\+D800 at character 2 is half of a surrogate pair"),
        (["\udfff"], r"input 0: U\+DFFF at character 0"),
        (["fine", None], "input 1 is of type NoneType"),
        ([3], "input 0 is of type int"),
        ([("a", "b")], "input 0 is of type tuple"),
        ([b"a"], "input 0 is of type bytes"),
    ],
)
def test_what_is_not_text_is_refused_by_index(texts: list[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make(wordpiece()).encode(texts, truncate=True)


def test_a_surrogate_in_a_text_that_would_be_cut_off_is_still_refused() -> None:
    with pytest.raises(InvalidInput, match=r"U\+DC00"):
        make(wordpiece()).encode([TEXT * 10 + "\udc00"], truncate=True)


@pytest.mark.parametrize("text", ["fine", TEXT * 10])
def test_a_surrogate_in_the_prompt_is_the_prompts_fault(text: str) -> None:
    for direction in Direction:
        with pytest.raises(InvalidInput, match=r"prompt: U\+DC00 at character 1"):
            make(wordpiece()).encode([text], prompt="a\udc00", truncate=True, direction=direction)
    with pytest.raises(InvalidInput, match=r"prompt: U\+DC00 at character 1"):
        make(wordpiece()).from_ids([[7]], prompt="a\udc00", truncate=True)


def test_a_tokenizer_without_special_tokens_refuses_texts_without_tokens() -> None:
    bare = wordpiece()
    bare.post_processor = processors.ByteLevel()
    tokenizer = make(bare)
    assert tokenizer.num_special == 0
    assert len(ids(tokenizer, "one")) >= 1
    with pytest.raises(InvalidInput, match="input 1 has no tokens"):
        tokenizer.encode(["one", " "], truncate=True)


def test_threads_that_cut_at_different_ends_do_not_disturb_each_other() -> None:
    tokenizer = make(wordpiece(), 12)
    texts = [f"{sentence} {i}" for i in range(8) for sentence in SENTENCES]
    expected = {d: tokenizer.encode(texts, truncate=True, direction=d).ids for d in Direction}
    jobs = [d for d in Direction for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda d: tokenizer.encode(texts, truncate=True, direction=d).ids, jobs))
    assert results == [expected[d] for d in jobs]


# Prompts


def test_a_prompt_goes_before_the_text() -> None:
    tokenizer = make(wordpiece())
    encoded = tokenizer.encode(["the sea"], prompt="query: ", truncate=True)
    assert (encoded.ids, encoded.skips) == ([ids(tokenizer, "query: the sea")], None)


@pytest.mark.parametrize(("kind", "specials"), [("wordpiece", 1), ("unigram", 1), ("metaspace-bpe", 0)])
def test_a_prompt_that_is_not_included_is_counted_with_the_leading_special_token(kind: str, specials: int) -> None:
    prompt = "the weather: "
    tokenizer = make(KINDS[kind](), include_prompt=False)
    content = len(KINDS[kind]().encode(prompt, add_special_tokens=False).ids)
    assert tokenizer.encode(["sea", "boats"], prompt=prompt, truncate=True).skips == [content + specials] * 2
    assert tokenizer.encode(["sea"], truncate=True).skips is None


def test_cut_on_the_left_the_prompt_goes_first() -> None:
    tokenizer = make(wordpiece(), 8, include_prompt=False)
    prompt, text = "sea ", "boats passed the"
    parts = [len(wordpiece().encode(part, add_special_tokens=False).ids) for part in (prompt, text)]
    assert 6 - parts[1] < parts[0]
    encoded = tokenizer.encode([text], prompt=prompt, truncate=True, direction=Direction.LEFT)
    assert encoded.skips == [1 + max(0, 6 - parts[1])]


def test_cut_on_the_left_of_a_long_text_no_prompt_is_left_to_skip() -> None:
    tokenizer = make(wordpiece(), 8, include_prompt=False)
    long = tokenizer.encode([TEXT * 10], prompt="query: ", truncate=True, direction=Direction.LEFT)
    assert long.skips == [1]
    assert tokenizer.encode([TEXT * 10], prompt="query: ", truncate=True).skips == [7]


def test_something_is_always_left_to_pool() -> None:
    tokenizer = make(wordpiece(), 8, include_prompt=False)
    for direction in Direction:
        encoded = tokenizer.encode(["", "sea"], prompt=TEXT, truncate=True, direction=direction)
        assert encoded.skips is not None
        assert all(skip < len(row) for skip, row in zip(encoded.skips, encoded.ids, strict=True))


# Token ids


@pytest.mark.parametrize("kind", KINDS)
def test_ids_give_what_their_text_gives(kind: str) -> None:
    tokenizer = make(KINDS[kind](), 500)
    plain = [KINDS[kind]().encode(text, add_special_tokens=False).ids for text in SENTENCES]
    expected = tokenizer.encode(SENTENCES, truncate=True)
    assert tokenizer.from_ids(plain, truncate=True) == expected
    assert tokenizer.from_ids(expected.ids, truncate=True) == expected


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_cut_as_their_text_is(kind: str, direction: Direction) -> None:
    tokenizer = make(KINDS[kind](), 9)
    plain = [KINDS[kind]().encode(text, add_special_tokens=False).ids for text in SENTENCES]
    expected = oracle(kind, list(SENTENCES), 9, direction)
    assert tokenizer.from_ids(plain, truncate=True, direction=direction).ids == expected


@pytest.mark.parametrize("include_prompt", [True, False])
def test_ids_take_a_prompt_too(include_prompt: bool) -> None:
    tokenizer = make(wordpiece(), include_prompt=include_prompt)
    text = "the sea"
    plain = wordpiece().encode(text, add_special_tokens=False).ids
    expected = tokenizer.encode([text], prompt="query: ", truncate=True)
    assert tokenizer.from_ids([plain], prompt="query: ", truncate=True) == expected


def test_half_a_frame_is_no_frame() -> None:
    assert make(wordpiece()).from_ids([[2, 7], [7, 3], [2], [3]], truncate=True).ids == [
        [2, 2, 7, 3],
        [2, 7, 3, 3],
        [2, 2, 3],
        [2, 3, 3],
    ]


def test_too_many_ids_are_refused_without_truncation() -> None:
    with pytest.raises(TextTooLong, match="input 0 has 42 tokens"):
        make(wordpiece()).from_ids([[7] * 40], truncate=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "input 1 is empty"),
        ([7, -1], "input 1: -1 is no token id; ids are whole numbers from 0 to 567"),
        ([7, 568], "input 1: 568 is no token id"),
        ([10**30], "input 1: 10{30} is no token id"),
        ([7, True], "input 1: True is no token id"),
        ([7.0], r"input 1: 7\.0 is no token id"),
        (["7"], "input 1: '7' is no token id"),
        ([None], "input 1: None is no token id"),
        ([[7]], r"input 1: \[7\] is no token id"),
    ],
)
def test_what_is_no_token_id_is_named(row: list[Any], message: str) -> None:
    tokenizer = wordpiece()
    assert tokenizer.get_vocab_size() == 568
    with pytest.raises(InvalidInput, match=message):
        make(tokenizer).from_ids([[7], row], truncate=True)


def test_ids_that_the_model_has_no_row_for_are_refused_from_text_too() -> None:
    tokenizer = make(wordpiece(), vocab_size=100)
    assert tokenizer.vocab_size == 100
    with pytest.raises(InvalidInput, match="ids are whole numbers from 0 to 99"):
        tokenizer.from_ids([[100]], truncate=True)
    with pytest.raises(InvalidInput, match="input 1: "):
        tokenizer.encode(["a", TEXT], truncate=True)


def test_a_model_with_more_rows_than_the_tokenizer_has_tokens() -> None:
    assert make(wordpiece(), vocab_size=640).vocab_size == wordpiece().get_vocab_size()


# Pieces


def test_pieces_of_an_ascii_text() -> None:
    tokenizer = make(wordpiece(), 5)
    pieces = tokenizer.tokenize("The keeper, and more than fits")
    assert pieces[0] == Piece(2, "[CLS]", True, None, None)
    assert pieces[-1] == Piece(3, "[SEP]", True, None, None)
    assert [(p.text, p.start, p.stop) for p in pieces[1:3]] == [("The", 0, 3), ("keeper", 4, 10)]
    assert len(pieces) > 5
    assert [p for p in pieces if not p.special] == tokenizer.tokenize(
        "The keeper, and more than fits", add_special_tokens=False
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*SENTENCES, "été 😀 \u1e9e", "a\u0301 o\u0308", "a\0b"])
def test_offsets_are_bytes_and_the_text_is_what_lies_there(kind: str, text: str) -> None:
    encoded = text.encode()
    for piece in make(KINDS[kind]()).tokenize(text):
        if not piece.special:
            assert encoded[piece.start : piece.stop].decode() == piece.text


def test_pieces_of_nothing_and_of_no_text() -> None:
    tokenizer = make(wordpiece())
    assert [p.text for p in tokenizer.tokenize("")] == ["[CLS]", "[SEP]"]
    assert tokenizer.tokenize("", add_special_tokens=False) == []
    with pytest.raises(InvalidInput, match="half of a surrogate pair"):
        tokenizer.tokenize("\ud800")


def test_a_special_token_that_was_typed_is_a_piece_with_a_place() -> None:
    piece = make(wordpiece()).tokenize("a [SEP]")[2]
    assert piece == Piece(3, "[SEP]", False, 2, 7)


def test_decode() -> None:
    tokenizer = make(wordpiece())
    row = ids(tokenizer, "the sea, very quiet")
    assert tokenizer.decode(row) == "the sea, very quiet"
    assert tokenizer.decode(row, skip_special_tokens=False) == "[CLS] the sea, very quiet [SEP]"
    with pytest.raises(InvalidInput, match="-1 is no token id"):
        tokenizer.decode([-1])
    with pytest.raises(InvalidInput, match="empty"):
        tokenizer.decode([])
