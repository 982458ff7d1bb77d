"""Canonical tensor names to each family's own: one table a family.

Keys and values leave out ``.weight`` and ``.bias``, which both sides share. ``{}`` is the layer's number. A fused
tensor is a ``Slice``: one of ``parts`` equal slices of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import msgspec


class Slice(msgspec.Struct, frozen=True):
    """``part`` of ``parts`` equal slices along the rows of the tensor ``name``."""

    name: str
    part: int = 0
    parts: int = 1


Table: TypeAlias = Mapping[str, str | Slice]

_EMBEDDINGS: Table = {
    "embeddings.token": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}

_BERT_MLP: Table = {
    "mlp.up": "encoder.layer.{}.intermediate.dense",
    "mlp.down": "encoder.layer.{}.output.dense",
    "mlp.norm": "encoder.layer.{}.output.LayerNorm",
}

_BERT: Table = {
    **_EMBEDDINGS,
    **_BERT_MLP,
    "attention.query": "encoder.layer.{}.attention.self.query",
    "attention.key": "encoder.layer.{}.attention.self.key",
    "attention.value": "encoder.layer.{}.attention.self.value",
    "attention.out": "encoder.layer.{}.attention.output.dense",
    "attention.norm": "encoder.layer.{}.attention.output.LayerNorm",
}

_DISTILBERT: Table = {
    **_EMBEDDINGS,
    "attention.query": "transformer.layer.{}.attention.q_lin",
    "attention.key": "transformer.layer.{}.attention.k_lin",
    "attention.value": "transformer.layer.{}.attention.v_lin",
    "attention.out": "transformer.layer.{}.attention.out_lin",
    "attention.norm": "transformer.layer.{}.sa_layer_norm",
    "mlp.up": "transformer.layer.{}.ffn.lin1",
    "mlp.down": "transformer.layer.{}.ffn.lin2",
    "mlp.norm": "transformer.layer.{}.output_layer_norm",
}

_MPNET: Table = {
    **_EMBEDDINGS,
    **_BERT_MLP,
    "relative": "encoder.relative_attention_bias",
    "attention.query": "encoder.layer.{}.attention.attn.q",
    "attention.key": "encoder.layer.{}.attention.attn.k",
    "attention.value": "encoder.layer.{}.attention.attn.v",
    "attention.out": "encoder.layer.{}.attention.attn.o",
    "attention.norm": "encoder.layer.{}.attention.LayerNorm",
}

_MODERNBERT: Table = {
    "embeddings.token": "embeddings.tok_embeddings",
    "embeddings.norm": "embeddings.norm",
    "attention.query": Slice("layers.{}.attn.Wqkv", 0, 3),
    "attention.key": Slice("layers.{}.attn.Wqkv", 1, 3),
    "attention.value": Slice("layers.{}.attn.Wqkv", 2, 3),
    "attention.out": "layers.{}.attn.Wo",
    "attention.norm": "layers.{}.attn_norm",
    "mlp.gate": Slice("layers.{}.mlp.Wi", 0, 2),
    "mlp.up": Slice("layers.{}.mlp.Wi", 1, 2),
    "mlp.down": "layers.{}.mlp.Wo",
    "mlp.norm": "layers.{}.mlp_norm",
    "final.norm": "final_norm",
}

TABLES: Mapping[str, Table] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
}

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def source_of(table: Table, canonical: str) -> Slice:
    """Where the file keeps the tensor ``canonical``, before any prefix such as ``bert.``."""
    stem, _, kind = canonical.rpartition(".")
    layer = _LAYER.fullmatch(stem)
    index, key = (layer[1], layer[2]) if layer else ("", stem)
    entry = table[key]
    source = entry if isinstance(entry, Slice) else Slice(entry)
    return Slice(f"{source.name.format(index)}.{kind}", source.part, source.parts)
