"""Cohere's v2 API with nothing but the standard library: queries and documents get the model's own prompts."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import Request, urlopen

URL = os.environ.get("TANDEM_URL", "http://127.0.0.1:8080")
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('TANDEM_KEY', 'none')}"}


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """GET, or POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(URL + path, data, HEADERS)) as reply:
        return json.load(reply)


def embed(input_type: str, texts: list[str]) -> list[list[float]]:
    """One vector a text."""
    reply = ask("/v2/embed", {"model": model, "input_type": input_type, "texts": texts})
    rows: list[list[float]] = reply["embeddings"]["float"]
    return rows


model = ask("/info")["model_id"]
documents = ["Water temperatures", "Ships"]
(query,) = embed("search_query", ["How warm is the sea?"])
for document, vector in zip(documents, embed("search_document", documents), strict=True):
    print(f"{sum(a * b for a, b in zip(query, vector, strict=True)):.3f}  {document}")
