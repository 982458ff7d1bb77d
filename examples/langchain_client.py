"""LangChain: ``pip install langchain-openai``."""

from __future__ import annotations

import os

from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

embeddings = OpenAIEmbeddings(
    base_url=os.environ.get("TANDEM_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=SecretStr(os.environ.get("TANDEM_KEY", "none")),
    model=os.environ.get("TANDEM_MODEL", "all-MiniLM-L6-v2"),
    # LangChain would cut texts into tokens of OpenAI's models, which are not this model's.
    check_embedding_ctx_length=False,
)
query = embeddings.embed_query("How warm is the sea?")
for text in ("Water temperatures", "Ships"):
    (vector,) = embeddings.embed_documents([text])
    print(f"{sum(a * b for a, b in zip(query, vector, strict=True)):.3f}  {text}")
