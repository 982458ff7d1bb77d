"""The parts of ``tandem bench gpu`` that need PyTorch: the device's peak, its memory's counters, and the same work done
by transformers. Imported once PyTorch is known to be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tandem.bench.gpu_model import Subject
from tandem.models.weight_names import TABLES, source_of

_COUNTERS = {
    "allocations": "allocation.all.allocated",
    "driver allocations": "segment.all.allocated",
    "retries": "num_alloc_retries",
}


def multiplier(device: str, dtype: str, size: int, repeats: int) -> tuple[Callable[[], None], float]:
    """A function that multiplies two square matrices ``repeats`` times and waits, and the operations that this is.

    What it reaches is called the peak: no encoder can be faster than the same library's plain product.
    """
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                torch.mm(a, b, out=out)
        synchronize(device)

    return run, 2.0 * size**3 * repeats


def torch_words() -> str:
    """Its version and CUDA's."""
    return f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"


def synchronize(device: str) -> None:
    """Wait until the device has done all it was asked for."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def memory_counters(device: str) -> dict[str, int]:
    """What PyTorch's allocator has done so far on a GPU, by name; empty on the CPU, where it keeps no count."""
    if device == "cpu":
        return {}
    stats = torch.cuda.memory_stats(device)
    return {name: int(stats.get(key, 0)) for name, key in _COUNTERS.items()}


def release() -> None:
    """Give PyTorch's cached memory back."""
    torch.cuda.empty_cache()


class PaddedPeer:
    """transformers' own model of the same weights: texts padded to the longest of their batch, attention by
    scaled_dot_product_attention, mean pooling, the same type: what sentence-transformers runs after its tokenizer."""

    def __init__(self, subject: Subject, device: str, dtype: str) -> None:
        """Raises ImportError where transformers is not installed."""
        import transformers

        self.version = transformers.__version__
        self._device = device
        if subject.made:
            model: Any = _made(subject)
        else:
            model = transformers.AutoModel.from_pretrained(subject.folder, attn_implementation="sdpa")
        self._model = model.to(device=device, dtype=getattr(torch, dtype)).eval()

    def run(self, texts: Sequence[NDArray[np.int32]], batch_size: int) -> NDArray[np.float32]:
        """Rows of ``texts``, sorted by length, ``batch_size`` at a time."""
        order = np.argsort([len(text) for text in texts], kind="stable")[::-1]
        rows = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows[chosen] = self._batch([texts[index] for index in chosen])
        return rows

    def _batch(self, texts: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        width = max(map(len, texts))
        ids = np.zeros((len(texts), width), np.int64)
        mask = np.zeros((len(texts), width), np.int64)
        for row, seen, text in zip(ids, mask, texts, strict=True):
            row[: len(text)] = text
            seen[: len(text)] = 1
        with torch.inference_mode():
            real = torch.from_numpy(mask).to(self._device)
            out = self._model(input_ids=torch.from_numpy(ids).to(self._device), attention_mask=real)
            states = out.last_hidden_state.float() * real[:, :, None]
            pooled: NDArray[np.float32] = (states.sum(1) / real.sum(1, keepdim=True)).cpu().numpy()
        return pooled


def _made(subject: Subject) -> torch.nn.Module:
    import transformers

    d = subject.description
    config: Any = transformers.BertConfig(
        vocab_size=d.vocab_size,
        hidden_size=d.hidden,
        num_hidden_layers=len(d.layers),
        num_attention_heads=d.heads,
        intermediate_size=d.intermediate,
        max_position_embeddings=d.max_positions,
        layer_norm_eps=d.norm_eps,
    )
    config._attn_implementation = "sdpa"
    model: torch.nn.Module = transformers.BertModel(config, add_pooling_layer=False)
    table = TABLES[d.family]
    named = {source_of(table, name).name: torch.from_numpy(tensor) for name, tensor in subject.weights.items()}
    model.load_state_dict(named, strict=False)
    return model
