"""What a sentence-transformers folder says beside its weights: pooling, dense heads, prompts, lengths.

Sources: the files that sentence-transformers 2 to 6 write (``modules.json``, ``N_Pooling/config.json``,
``N_Dense/config.json``, ``sentence_bert_config.json``, ``config_sentence_transformers.json``) and the two of
transformers that carry lengths (``config.json``, ``tokenizer_config.json``).
"""

from __future__ import annotations

import msgspec


class DenseSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A projection after pooling. Weights: ``<folder>/<path>/model.safetensors``, ``linear.weight`` [out, in] and
    ``linear.bias`` [out] where ``bias``. ``activation`` is ``identity``, ``tanh``, ``relu`` or ``gelu`` (erf form)."""

    path: str
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "tanh"


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happens to a text around the encoder.

    ``pooling`` holds ``cls``, ``max``, ``mean``, ``mean_sqrt_len``, ``weightedmean`` or ``last``; several are
    concatenated in this order. ``include_prompt`` False leaves the prompt's tokens out of pooling. ``normalize`` is
    the trailing Normalize, applied at the engine's exit. ``max_seq_length`` is sentence-transformers' own limit in
    tokens, special tokens counted. ``prompts`` has no null in it: an absent prompt is the empty string.
    """

    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[DenseSpec, ...] = ()
    normalize: bool = False
    max_seq_length: int | None = None
    prompts: dict[str, str] = msgspec.field(default_factory=dict)
    default_prompt_name: str | None = None
    do_lower_case: bool = False
