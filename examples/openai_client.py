"""OpenAI's own client, unchanged: ``pip install openai``."""

from __future__ import annotations

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TANDEM_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("TANDEM_KEY", "none"),
)
model = client.models.list().data[0].id

reply = client.embeddings.create(model=model, input=["How warm is the sea?", "Water temperatures"])
for item in reply.data:
    print(item.index, len(item.embedding), item.embedding[:3])
print(f"{reply.usage.total_tokens} tokens")

# Tandem's own fields go into extra_body.
background = {"priority": "background", "timeout_ms": 5000}
short = client.embeddings.create(model=model, input="How warm is the sea?", dimensions=4, extra_body=background)
print(short.data[0].embedding)
