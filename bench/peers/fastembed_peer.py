"""fastembed on ONNX Runtime, with the same weights exported to ONNX (see ``export_onnx.py``).

fastembed downloads its models by name from the hub; the ways in for own files are ``add_custom_model`` and
``specific_model_path``, which this uses, so no network is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from protocol import Embed, serve

NAME = "local/all-MiniLM-L6-v2"


def load(job: dict[str, Any]) -> tuple[Embed, dict[str, Any]]:
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding(NAME, specific_model_path=job["onnx"], threads=job["threads"])
    batch_size = job.get("batch_size", 256)

    def embed(texts: Any) -> np.ndarray:
        return np.array(list(model.embed(texts, batch_size=batch_size)), dtype=np.float32)

    return embed, {"engine": "onnxruntime", "dtype": "fp32", "batch_size": batch_size, "threads": job["threads"]}


if __name__ == "__main__":
    serve(load, ("fastembed", "onnxruntime", "numpy"))
