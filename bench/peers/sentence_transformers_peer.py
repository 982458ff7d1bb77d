"""sentence-transformers on torch, as its documentation uses it: ``SentenceTransformer(...).encode(texts)``.

``encode`` sorts by length itself. ``precision`` "bf16" converts the weights, which is not what people run by default
but is the fair neighbour of a bf16 tier.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from protocol import Embed, serve
from sentence_transformers import SentenceTransformer


def load(job: dict[str, Any]) -> tuple[Embed, dict[str, Any]]:
    torch.set_num_threads(job["threads"])
    precision = job.get("precision", "fp32")
    model = SentenceTransformer(job["model"], device="cpu", local_files_only=True)
    if precision == "bf16":
        model = model.bfloat16()
    batch_size = job.get("batch_size", 32)
    encode = functools.partial(model.encode, batch_size=batch_size, show_progress_bar=False)
    if precision == "bf16":
        plain = functools.partial(encode, convert_to_tensor=True)
        embed: Embed = lambda texts: plain(texts).float().numpy()  # noqa: E731
    else:
        embed = encode
    return embed, {"engine": "torch", "dtype": precision, "batch_size": batch_size, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    serve(load, ("sentence-transformers", "transformers", "torch", "numpy"))
