"""An engine over the fake backend, for tests of what stands between a caller and a device.

A text is words from ``w0`` to ``w89``, each one token between [CLS] and [SEP]; ``poison`` fails the batch it is in and
``nan`` spoils its own row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock, Semaphore
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tandem.admission import EngineOptions
from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.batching import POLICIES, BatchLimits
from tandem.clock import Clock, SystemClock
from tandem.engine import Engine
from tandem.intake import ModelInfo
from tandem.models.tokenizer import TextTokenizer, TokenizerOptions
from tandem.models.weight_names import TABLES, source_of
from tandem.scheduling.core import single
from tandem.scheduling.device import DeviceOptions
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import EmbedRequest, EmbedResult, Outcome, Output, Packing, Tier, TokenBatch
from tandem.workers.inline import InlineWorker
from tests.model_folders import write_json, write_model
from tests.tiny_models import random_weights, tiny, write_safetensors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
POISON_ID, NAN_ID = 4, 5
VOCABULARY = [*SPECIAL, "poison", "nan", *(f"w{i}" for i in range(90))]
MAX_TOKENS = 64
DIMS = 16
LIMITS = BatchLimits(max_tokens=256, max_width=MAX_TOKENS)
FAKE = FakeOptions(dims=DIMS, poison=POISON_ID, nan=NAN_ID)


class Device:
    """The fake backend behind a door: keeps each batch it is given, and computes it once the door is open."""

    name = "fake"
    tier = Tier.FP32
    packing = Packing.ONE_A_ROW

    def __init__(self, options: FakeOptions = FAKE, *, shut: bool = False) -> None:
        self._fake = FakeBackend(options)
        self.dims = self._fake.dims
        self.hidden = self._fake.hidden
        self.streams = options.streams
        self.compute: Callable[[TokenBatch], NDArray[np.float32]] = self._fake.run
        self.batches: list[TokenBatch] = []
        self.fault: Callable[[], object] = lambda: None
        """Called before each batch; may raise."""
        self.closed = 0
        self.door = Event()
        if not shut:
            self.door.set()
        self._lock = Lock()
        self.arrived = Semaphore(0)
        """Released for each batch that comes, whether it may run or not."""

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        with self._lock:
            self.batches.append(batch)
        self.arrived.release()
        assert self.door.wait(30), "nobody opened the door"
        self.fault()
        return self.compute(batch)

    def close(self) -> None:
        self.closed += 1

    async def arrival(self) -> None:
        """Return once one more batch has come."""
        assert await asyncio.to_thread(self.arrived.acquire, timeout=30), "no batch came"

    @property
    def computed(self) -> list[list[int]]:
        """The ids of every text that came, in order."""
        return [text.tolist() for batch in self.batches for text in batch.texts()]


def word_tokenizer(words: Sequence[str] = VOCABULARY) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def text_tokenizer(*, include_prompt: bool = True) -> TextTokenizer:
    return TextTokenizer(word_tokenizer(), TokenizerOptions(max_tokens=MAX_TOKENS, include_prompt=include_prompt))


def model_info(*, normalize: bool = False, default_prompt_name: str | None = None) -> ModelInfo:
    return ModelInfo(
        id="acme/words",
        aliases=("words",),
        dims=DIMS,
        hidden=DIMS,
        max_tokens=MAX_TOKENS,
        tier=Tier.FP32,
        device="cpu (fake)",
        backend="fake",
        pooling="mean",
        normalize=normalize,
        prompts={"query": "w7 w8", "passage": "w9"},
        default_prompt_name=default_prompt_name,
        fingerprint="f00d",
        source="folder",
        dtype="float32",
    )


def make_loop(
    device: Device,
    clock: Clock | None = None,
    policy: str = "memory_aware",
    observer: Callable[[Outcome], None] = lambda outcome: None,
) -> SchedulerLoop:
    clock = clock or SystemClock()
    core = single(POLICIES.get(policy)(LIMITS), DeviceOptions(slots=device.streams, limits=LIMITS))
    return SchedulerLoop(core, [InlineWorker(device, clock)], clock, 0, observer)


def make_engine(
    device: Device,
    options: EngineOptions | None = None,
    *,
    clock: Clock | None = None,
    model: ModelInfo | None = None,
    tokenizer: TextTokenizer | None = None,
) -> Engine:
    clock = clock or SystemClock()
    loop = make_loop(device, clock)
    return Engine(model or model_info(), tokenizer or text_tokenizer(), loop, clock, options or EngineOptions())


def words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


def alone(text: str, *, dims: int = DIMS) -> NDArray[np.float32]:
    """The row that the fake backend gives for one text, [dims]."""
    (ids,) = text_tokenizer().encode([text], truncate=True).ids
    batch = TokenBatch(ids=np.array([ids], np.int32), lengths=np.array([len(ids)], np.int32))
    row: NDArray[np.float32] = FakeBackend(msgspec.structs.replace(FAKE, dims=dims)).run(batch)[0]
    return row


def asking(*texts: str, **options: Any) -> EmbedRequest:
    return EmbedRequest(inputs=list(texts), **options)


def rows(result: EmbedResult) -> NDArray[np.float32]:
    assert isinstance(result.rows, np.ndarray)
    return result.rows


async def begin(engine: Engine, request: EmbedRequest) -> asyncio.Task[EmbedResult]:
    """The request, under way."""
    task = asyncio.create_task(engine.embed(request))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def until(state: Callable[[], bool]) -> None:
    """Give other tasks and threads their turn until ``state`` holds."""
    for _ in range(100_000):
        if state():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to that")


def batch_of(
    texts: Sequence[Sequence[int]],
    *,
    width: int = 0,
    skips: Sequence[int] | None = None,
    output: Output = Output.POOLED,
) -> TokenBatch:
    """Texts of token ids as a batch, one a row, at least ``width`` wide."""
    lengths = np.array([len(text) for text in texts], np.int32)
    ids = np.zeros((len(texts), max(width, int(lengths.max()))), np.int32)
    for place, text in enumerate(texts):
        ids[place, : len(text)] = text
    skipped = None if skips is None else np.array(skips, np.int32)
    return TokenBatch(ids=ids, lengths=lengths, skips=skipped, output=output)


def write_word_model(root: Path) -> Path:
    """A folder that a real engine serves: a tiny BERT of random weights that knows the words to ``w43``."""
    write_model(root)
    weights = random_weights(tiny())
    named = {source_of(TABLES["bert"], name).name: tensor for name, tensor in weights.items()}
    write_safetensors(root / "model.safetensors", named)
    word_tokenizer(VOCABULARY[:50]).save(str(root / "tokenizer.json"))
    write_json(root / "tokenizer_config.json", {"pad_token": "[PAD]"})
    return root
