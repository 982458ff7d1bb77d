"""The same ids as transformers, and the same prompt lengths as sentence-transformers, on real tokenizers and texts."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import Pipeline, read_pipeline
from tandem.models.tokenizer import TextTokenizer
from tandem.types import Direction
from tests.made_tokenizers import SENTENCES

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
ODD = [
    "",
    " ",
    "\0",
    "a\0b",
    "[CLS] typed [SEP]",
    "a\u0301o\u0308",
    "😀 👩‍👩‍👧",
    "İstanbul ΟΔΟΣ ẞ",
    "x" * 300,
    "中" * 300,
]


@pytest.fixture(scope="session")
def texts(shared_data: Path) -> list[str]:
    """Ten scripts, 5 to 73,036 characters."""
    path = shared_data / "length-mix" / "texts.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines][:600] + ODD


def theirs(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


def their_ids(tokenizer: Any, texts: list[str], limit: int, direction: Direction = Direction.RIGHT) -> Any:
    tokenizer.truncation_side = direction.value
    return tokenizer(texts, truncation=True, max_length=limit)["input_ids"]


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("limit", [16, 256])
def test_minilm_on_real_texts(minilm_folder: ModelFolder, texts: list[str], limit: int, direction: Direction) -> None:
    ours = TextTokenizer.load(minilm_folder, Pipeline(max_seq_length=limit))
    expected = their_ids(theirs(minilm_folder.path), texts, limit, direction)
    assert ours.encode(texts, truncate=True, direction=direction).ids == expected


@pytest.fixture(scope="module")
def minilm_pair(minilm_folder: ModelFolder) -> tuple[TextTokenizer, Any]:
    return TextTokenizer.load(minilm_folder, read_pipeline(minilm_folder)), theirs(minilm_folder.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(TEXTS, min_size=1, max_size=4), direction=st.sampled_from(Direction))
def test_minilm_on_any_text(minilm_pair: tuple[TextTokenizer, Any], batch: list[str], direction: Direction) -> None:
    ours, tokenizer = minilm_pair
    assert ours.encode(batch, truncate=True, direction=direction).ids == their_ids(tokenizer, batch, 256, direction)


@given(ids=st.lists(st.integers(0, 30521), min_size=1, max_size=30), skip=st.booleans())
def test_decoding_is_transformers(minilm_pair: tuple[TextTokenizer, Any], ids: list[int], skip: bool) -> None:
    ours, tokenizer = minilm_pair
    assert ours.decode(ids, skip_special_tokens=skip) == tokenizer.backend_tokenizer.decode(
        ids, skip_special_tokens=skip
    )


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": True},
    ],
)
@pytest.mark.parametrize("without", [None, "tokenizer.json"])
def test_the_config_counts_as_in_transformers(
    minilm_folder: ModelFolder, tmp_path: Path, config: dict[str, bool], without: str | None
) -> None:
    for name in ("tokenizer.json", "vocab.txt", "config.json"):
        if name != without:
            shutil.copy(minilm_folder.path / name, tmp_path / name)
    stated = {"tokenizer_class": "BertTokenizer", "model_max_length": 64} | config
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    ours = TextTokenizer.load(ModelFolder(path=tmp_path, name="minilm", source="folder"), Pipeline())
    expected = their_ids(theirs(tmp_path), [*SENTENCES, *ODD], 64)
    assert ours.encode([*SENTENCES, *ODD], truncate=True).ids == expected


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "bge-small-en-v1.5", "bge-small-zh-v1.5"])
def test_other_real_tokenizers(shared_data: Path, texts: list[str], name: str) -> None:
    path = shared_data / "tokenizers" / name
    if not path.is_dir():
        pytest.skip(f"no {path}")
    ours = TextTokenizer.load(ModelFolder(path=path, name=name, source="folder"), Pipeline(max_seq_length=128))
    fast = pytest.importorskip("transformers").PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    assert ours.encode(texts, truncate=True).ids == their_ids(fast, texts, 128)


def test_prompts_are_counted_as_in_sentence_transformers(minilm_folder: ModelFolder) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(minilm_folder.path), device="cpu")
    ours = TextTokenizer.load(minilm_folder, Pipeline(max_seq_length=256, include_prompt=False))
    for prompt in ("query: ", "Represent this sentence for searching relevant passages: ", "x", "!?", "[SEP]", " "):
        features = model.preprocess(["the sea", SENTENCES[0] * 40], prompt=prompt)
        encoded = ours.encode(["the sea", SENTENCES[0] * 40], prompt=prompt, truncate=True)
        assert encoded.skips == [features["prompt_length"]] * 2
        assert encoded.ids[1] == features["input_ids"][1].tolist()
