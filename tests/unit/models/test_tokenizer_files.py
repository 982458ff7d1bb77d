"""From a folder's files to a tokenizer; tests/golden compares the result with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import Pipeline
from tandem.models.tokenizer import TextTokenizer, TokenizerOptions
from tests.made_tokenizers import SENTENCES, byte_bpe, wordpiece

TEXT = " ".join(SENTENCES)


def save(folder: Path, files: dict[str, Any]) -> ModelFolder:
    for name, content in files.items():
        text = content.to_str() if isinstance(content, Tokenizer) else content
        (folder / name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return ModelFolder(path=folder, name="test-model", source="folder")


def load(folder: Path, files: dict[str, Any], pipeline: Pipeline | None = None) -> TextTokenizer:
    return TextTokenizer.load(save(folder, files), pipeline or Pipeline())


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode([text], truncate=True).ids[0]


def test_baked_in_truncation_and_padding_are_overridden(tmp_path: Path) -> None:
    baked = wordpiece()
    baked.enable_truncation(8)
    baked.enable_padding(length=16)
    tokenizer = load(tmp_path, {"tokenizer.json": baked, "tokenizer_config.json": {"pad_token": "[MASK]"}})
    whole = wordpiece().encode(TEXT * 2).ids
    assert len(whole) > 512
    assert tokenizer.encode(["a", TEXT * 2], truncate=True).ids == [wordpiece().encode("a").ids, [*whole[:511], 3]]
    assert (tokenizer.max_tokens, tokenizer.num_special, tokenizer.pad_id) == (512, 2, 4)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 0),
        ({"config.json": {"pad_token_id": 1}}, 1),
        ({"config.json": {"pad_token_id": None}}, 0),
        ({"special_tokens_map.json": {"pad_token": {"content": "[MASK]"}}}, 4),
        ({"special_tokens_map.json": {"pad_token": "[NONE]"}, "config.json": {"pad_token_id": 1}}, 1),
    ],
)
def test_pad_id(tmp_path: Path, files: dict[str, Any], expected: int) -> None:
    assert load(tmp_path, {"tokenizer.json": wordpiece()} | files).pad_id == expected


@pytest.mark.parametrize(
    ("config", "same"),
    [
        ({}, True),
        ({"do_lower_case": True}, True),
        ({"do_lower_case": False}, False),
        ({"do_lower_case": None}, True),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ({"tokenize_chinese_chars": False}, False),
        ({"strip_accents": False}, False),
    ],
)
def test_the_config_settles_case_accents_and_ideographs(tmp_path: Path, config: dict[str, Any], same: bool) -> None:
    text = "Été 灯塔管理员"
    tokenizer = load(tmp_path, {"tokenizer.json": wordpiece(), "tokenizer_config.json": config})
    assert (ids(tokenizer, text) == wordpiece().encode(text).ids) is same


def test_do_lower_case_comes_before_the_rest(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, {"tokenizer.json": wordpiece(lower=False)}, Pipeline(do_lower_case=True))
    assert ids(tokenizer, "THE SEA") == wordpiece(lower=False).encode("the sea").ids
    bare = byte_bpe()
    assert bare.normalizer is None
    tokenizer = load(tmp_path, {"tokenizer.json": bare}, Pipeline(do_lower_case=True))
    assert ids(tokenizer, "THE SEA") == byte_bpe().encode("the sea").ids


def vocab_txt(tokenizer: Tokenizer, rename: dict[str, str] | None = None) -> str:
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return "".join(f"{(rename or {}).get(token, token)}\n" for token, _ in tokens)


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_alone_makes_berts_tokenizer(tmp_path: Path, lower: bool) -> None:
    files = {"vocab.txt": vocab_txt(wordpiece(lower=lower)), "tokenizer_config.json": {"do_lower_case": lower}}
    tokenizer = load(tmp_path, files)
    texts = [*SENTENCES, "ÉTÉ [SEP] [MASK]", "灯塔\u2028管理"]
    assert tokenizer.encode(texts, truncate=True).ids == [wordpiece(lower=lower).encode(text).ids for text in texts]


def test_the_vocabulary_of_mpnet(tmp_path: Path) -> None:
    rename = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    files = {
        "vocab.txt": vocab_txt(wordpiece(), rename),
        "tokenizer_config.json": {"tokenizer_class": "MPNetTokenizerFast"},
    }
    assert ids(load(tmp_path, files), "the sea") == wordpiece().encode("the sea").ids


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, ModelBroken, r"tokenizer\.json: missing, and there is no vocab\.txt"),
        ({"tokenizer.json": "{"}, ModelBroken, r"tokenizer\.json: not a tokenizer"),
        ({"tokenizer.json": {"model": {"type": "Nonsense"}}}, ModelBroken, r"tokenizer\.json: not a tokenizer"),
        ({"vocab.txt": "a\nb\n"}, ModelBroken, r"2 tokens, and \[UNK\], \[CLS\], \[SEP\] is not among them"),
        ({"sentencepiece.bpe.model": "x"}, ModelUnsupported, r"sentencepiece\.bpe\.model without tokenizer\.json"),
        ({"vocab.json": "{}"}, ModelUnsupported, "save_pretrained"),
        (
            {"vocab.txt": "a", "tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}},
            ModelUnsupported,
            "BertJapaneseTokenizer without tokenizer.json; supported without it are BertTokenizer",
        ),
    ],
)
def test_files_that_can_not_be_used_are_named(
    tmp_path: Path, files: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(tmp_path, files)


def test_a_vocabulary_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xff\n")
    with pytest.raises(ModelBroken, match=r"vocab\.txt: not UTF-8"):
        load(tmp_path, {})


def test_a_limit_that_special_tokens_fill_is_broken() -> None:
    with pytest.raises(ModelBroken, match="2 tokens a text, and 2 of them are special"):
        TextTokenizer(wordpiece(), TokenizerOptions(max_tokens=2))
