"""What ``tandem bench gpu`` runs: a real model, or one of random weights with a tokenizer and texts made for it. Speed
does not depend on what the weights are, so no download is needed."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tandem.bench.gpu_options import GpuBenchOptions
from tandem.bench.texts import cutter, generate
from tandem.config import Settings, source_options
from tandem.models.description import EncoderDescription, LayerSpec, tensor_shapes
from tandem.models.loaded import load_model
from tandem.models.resolve import find_model
from tandem.models.tokenizer import TextTokenizer, TokenizerOptions
from tandem.types import TokenBatch

_VOCABULARY = 30522
_FRAME = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# As BERT's weights are drawn at the start of its training: activations stay in their usual range.
_SPREAD = 0.02


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` holds ``tokenizer.json``, and the model's files where ``made`` is False."""

    name: str
    description: EncoderDescription
    weights: Mapping[str, NDArray[Any]]
    tokenizer: TextTokenizer
    folder: Path
    made: bool


def find_subject(options: GpuBenchOptions, scratch: Path) -> Subject:
    """The model that is named, or one made of random weights. Raises ModelError."""
    if not options.model:
        return made_subject(options, scratch)
    settings = Settings(cache="off", model=options.model)
    model = load_model(find_model(settings.model, source_options(settings)), parallel_tokenizer=True)
    return Subject(
        name=model.folder.name,
        description=model.description,
        weights=model.weights,
        tokenizer=model.tokenizer,
        folder=model.folder.path,
        made=False,
    )


def made_subject(options: GpuBenchOptions, scratch: Path) -> Subject:
    """A BERT of random weights; its tokenizer is written to ``scratch``."""
    d = EncoderDescription(
        family="bert",
        vocab_size=_VOCABULARY,
        hidden=options.hidden,
        heads=options.heads,
        intermediate=4 * options.hidden,
        max_positions=512,
        token_types=2,
        layers=(LayerSpec(),) * options.layers,
    )
    tokenizer = word_pieces()
    tokenizer.save(str(scratch / "tokenizer.json"))
    return Subject(
        name=f"random weights, {options.layers} layers of {options.hidden}",
        description=d,
        weights=random_weights(d, options.seed),
        tokenizer=TextTokenizer(tokenizer, TokenizerOptions(max_tokens=d.max_positions)),
        folder=scratch,
        made=True,
    )


def random_weights(d: EncoderDescription, seed: int) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the description, as at the start of a training."""
    rng = np.random.default_rng(seed)
    found: dict[str, NDArray[np.float32]] = {}
    for name, shape in tensor_shapes(d).items():
        if name.endswith("norm.weight"):
            found[name] = np.ones(shape, np.float32)
        else:
            found[name] = rng.standard_normal(shape, np.float32) * np.float32(_SPREAD)
    return found


def word_pieces() -> Tokenizer:
    """WordPiece as BERT has it, over pairs of letters: a word of six letters is three tokens, which is more work than
    real vocabularies are, not less."""
    letters = string.ascii_lowercase
    pieces = [*letters, *map("".join, product(letters, repeat=2))]
    words = [*_FRAME, *pieces, *(f"##{piece}" for piece in pieces)]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def texts_of(subject: Subject, count: int, tokens: int, seed: int) -> list[str]:
    """Made-up texts of exactly ``tokens`` tokens by the subject's tokenizer, or nearly."""
    # A word of the generator has two letters at least, so that as many words as tokens are enough to cut from.
    return cutter(subject.folder)(generate(count, (tokens, tokens), seed), tokens)


def random_batch(d: EncoderDescription, lengths: Sequence[int], seed: int) -> TokenBatch:
    """Random tokens as texts of these lengths, end to end."""
    sizes = np.array(lengths, np.int32)
    ids = np.random.default_rng(seed).integers(4, d.vocab_size, (1, int(sizes.sum())), dtype=np.int32)
    return TokenBatch(ids, sizes, places=(np.cumsum(sizes) - sizes).astype(np.int32))


def full_batches(d: EncoderDescription, tokens: int, batch_tokens: int, count: int) -> list[TokenBatch]:
    """``count`` batches of texts of ``tokens`` tokens, each as near to ``batch_tokens`` as they go."""
    return [random_batch(d, [tokens] * max(1, batch_tokens // tokens), seed) for seed in range(count)]


def flops(d: EncoderDescription, lengths: Sequence[int]) -> float:
    """Floating-point operations of one forward pass over texts of ``lengths`` tokens, a multiplication and its addition
    counted as two: 2 * weights of the layers' matrices a token, and 4 * hidden a pair of tokens that see each other
    (scores and their mix). Embeddings, norms, activations and softmax are left out, as is usual (Chowdhery and others,
    arXiv:2204.02311, appendix B)."""
    products = 4 * d.hidden * d.hidden + (3 if d.gated else 2) * d.hidden * d.intermediate
    sizes = np.asarray(lengths, np.float64)
    total = 2.0 * products * len(d.layers) * float(sizes.sum())
    for layer in d.layers:
        seen = sizes if layer.window is None else np.minimum(sizes, 2 * layer.window + 1)
        pairs = sizes * (sizes + 1) / 2 if d.causal else sizes * seen
        total += 4.0 * d.hidden * float(pairs.sum())
    return total
