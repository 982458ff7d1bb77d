"""The texts that benchmarks run on: real ones where the data folder is there, else generated ones, labelled so."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

MIX_TOKENS = 256
"""Texts of the mix are cut here, as MiniLM's own ``max_seq_length`` does; every engine is given the cut text."""

_SYLLABLES = ("ra", "ne", "to", "mi", "sol", "ka", "ven", "du", "lor", "pe", "shi", "an", "gor", "eth", "ul", "bi")
# Quantiles 0, 10, ..., 100 % of the word counts of the English mix, so that generated texts are mixed in the same way.
_MIX_WORDS = (1, 9, 10, 11, 95, 140, 170, 180, 185, 190, 200)
_QUESTION_WORDS = (8, 8, 8, 9, 9, 9, 9, 10, 10, 12, 18)


class TextSet(msgspec.Struct, frozen=True):
    """``texts`` and where they came from; ``generated`` means that they are made up and figures on them are weaker."""

    name: str
    texts: list[str]
    source: str
    generated: bool = False


class SentencePairs(msgspec.Struct, frozen=True):
    """Pairs of sentences with a gold similarity from 0 to 5."""

    left: list[str]
    right: list[str]
    gold: list[float]
    source: str


class Cutter(Protocol):
    """Cuts texts so that none has more than ``tokens`` tokens."""

    def __call__(self, texts: list[str], tokens: int) -> list[str]: ...


def data_folder(named: str | None) -> Path | None:
    """``named``, else the environment's TANDEM_DATA, else ``shared/data`` beside the working folder; None if absent."""
    choice = named or os.environ.get("TANDEM_DATA")
    folder = Path(choice) if choice else Path.cwd().parent / "shared" / "data"
    return folder if folder.is_dir() else None


def english_mix(data: Path | None, cut: Cutter, limit: int | None = None) -> TextSet:
    """Questions, abstracts, paragraphs and articles, shuffled, each cut at ``MIX_TOKENS`` tokens."""
    path = data / "length-mix" / "texts.jsonl.gz" if data else None
    if path is None or not path.is_file():
        return TextSet("english mix", cut(generate(limit or 1000, _MIX_WORDS, seed=1), MIX_TOKENS), "generated", True)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"] for row in rows if row["lang"] == "en"][:limit]
    return TextSet("english mix", cut(texts, MIX_TOKENS), f"length-mix, English, cut at {MIX_TOKENS} tokens")


def questions(data: Path | None, limit: int | None = None) -> TextSet:
    """Short questions as people type them: the Natural Questions test set."""
    path = data / "search-queries" / "topics.dpr.nq.test.txt" if data else None
    if path is None or not path.is_file():
        return TextSet("questions", generate(limit or 3000, _QUESTION_WORDS, seed=2), "generated", True)
    texts = [line.partition("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    return TextSet("questions", texts[:limit], "Natural Questions test")


def sts_dev(data: Path | None) -> SentencePairs | None:
    """STS benchmark, dev; None where the data are not there, as nothing generated can stand in for people's scores."""
    path = data / "stsb" / "sts-dev.csv" if data else None
    if path is None or not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return SentencePairs(
        left=[row[5] for row in rows],
        right=[row[6] for row in rows],
        gold=[float(row[4]) for row in rows],
        source="STS benchmark dev",
    )


def cutter(model: Path) -> Cutter:
    """A ``Cutter`` by the model's own tokenizer. A cut falls between two tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def cut(texts: list[str], tokens: int) -> list[str]:
        # The last of the kept tokens is the closing special one, which stands for no characters: hence minus two.
        return [
            text[: encoding.offsets[tokens - 2][1]] if len(encoding.ids) > tokens else text
            for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)
        ]

    return cut


def generate(count: int, word_quantiles: tuple[int, ...], seed: int) -> list[str]:
    """``count`` made-up texts whose word counts follow the given quantiles (evenly spaced from 0 to 1)."""
    rng = np.random.default_rng(seed)
    lengths = np.interp(rng.random(count), np.linspace(0, 1, len(word_quantiles)), word_quantiles).round().astype(int)
    return [" ".join(_word(rng) for _ in range(max(1, length))) for length in lengths]


def _word(rng: np.random.Generator) -> str:
    return "".join(_SYLLABLES[i] for i in rng.integers(0, len(_SYLLABLES), rng.integers(1, 4)))
