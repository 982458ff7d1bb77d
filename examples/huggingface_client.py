"""Hugging Face's client, as for text-embeddings-inference: ``pip install huggingface_hub numpy``."""

from __future__ import annotations

import os

from huggingface_hub import InferenceClient

client = InferenceClient(
    base_url=os.environ.get("TANDEM_URL", "http://127.0.0.1:8080"), api_key=os.environ.get("TANDEM_KEY", "none")
)
vectors = client.feature_extraction(["How warm is the sea?", "Water temperatures"], normalize=True, truncate=True)
print(vectors.shape, vectors.dtype)

sentences = ["Water temperatures", "Ships"]
scores = client.sentence_similarity("How warm is the sea?", other_sentences=sentences)
for score, sentence in zip(scores, sentences, strict=True):
    print(f"{score:.3f}  {sentence}")
