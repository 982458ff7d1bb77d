"""From a model's ``config.json`` to the neutral description: one reader a family.

Field names and defaults are those of transformers' configuration classes. What a reader does not understand is
refused here, before any weight is read: a wrong vector is worse than no server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.description import Activation, EncoderDescription, LayerSpec, NormPlacement, Positions
from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import Pipeline, read_pipeline

T = TypeVar("T")
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}


class _Bert(msgspec.Struct):
    """BERT, and with other defaults RoBERTa and MPNet."""

    vocab_size: _Count = 30522
    hidden_size: _Count = 768
    num_hidden_layers: _Count = 12
    num_attention_heads: _Count = 12
    intermediate_size: _Count = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: _Count = 512
    type_vocab_size: _Count = 2
    layer_norm_eps: float = 1e-12
    position_embedding_type: str | None = "absolute"
    is_decoder: bool = False


class _Roberta(_Bert):
    pad_token_id: int = 1


class _MpNet(_Bert):
    relative_attention_num_buckets: _Count = 32


class _DistilBert(msgspec.Struct):
    vocab_size: _Count = 30522
    dim: _Count = 768
    n_layers: _Count = 6
    n_heads: _Count = 12
    hidden_dim: _Count = 3072
    activation: str = "gelu"
    max_position_embeddings: _Count = 512


class _ModernBert(msgspec.Struct):
    """``layer_types`` and ``rope_parameters`` are the form of transformers 5; the three fields after them are the
    form before, and count where the newer ones are absent."""

    vocab_size: _Count = 50368
    hidden_size: _Count = 768
    intermediate_size: _Count = 1152
    num_hidden_layers: _Count = 22
    num_attention_heads: _Count = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: _Count = 8192
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: _Count = 128
    layer_types: list[str] | None = None
    rope_parameters: dict[str, dict[str, Any] | None] | None = None
    global_attn_every_n_layers: _Count = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None


def describe_folder(folder: ModelFolder) -> EncoderDescription:
    """Describe the model in ``folder`` by its ``config.json`` and sentence-transformers files.

    Raises ModelBroken when ``config.json`` is absent or damaged, and what ``describe`` raises.
    """
    folder.require("config.json")
    return describe(folder.read_json("config.json") or {}, read_pipeline(folder))


def describe(config: Mapping[str, Any], pipeline: Pipeline | None = None) -> EncoderDescription:
    """The description of the encoder that ``config`` (a parsed ``config.json``) and ``pipeline`` stand for.

    Raises ModelUnsupported for anything that would make the vectors wrong: an unknown ``model_type``, remote code,
    other position embeddings, an unknown activation; ModelBroken for fields of a wrong type or impossible sizes.
    """
    _refuse_remote_code(config)
    model_type = config.get("model_type")
    reader = _READERS.get(str(model_type))
    if reader is None:
        raise ModelUnsupported(f"model_type {model_type!r} is not supported; supported are {', '.join(_READERS)}")
    description = reader(config)
    _check_sizes(description)
    pipeline = pipeline or Pipeline()
    described = msgspec.structs.replace(
        description, pooling=pipeline.pooling, skips_prompt=not pipeline.include_prompt, dense=pipeline.dense
    )
    _check_dense(described)
    return described


def _bert(config: Mapping[str, Any]) -> EncoderDescription:
    return _bert_like("bert", _parse(config, _Bert))


def _roberta(config: Mapping[str, Any]) -> EncoderDescription:
    # Position 0 takes the row after the padding token's id: fairseq numbered positions like its symbols.
    fields = _parse(config, _Roberta)
    return _bert_like("roberta", fields, position_offset=fields.pad_token_id + 1)


def _mpnet(config: Mapping[str, Any]) -> EncoderDescription:
    fields = _parse(config, _MpNet)
    if fields.relative_attention_num_buckets != 32:
        raise ModelUnsupported(
            f"relative_attention_num_buckets is {fields.relative_attention_num_buckets}; supported is 32"
        )
    # transformers holds MPNet's padding row at 1 whatever pad_token_id says, and gives it no token types.
    described = _bert_like("mpnet", fields, position_offset=2)
    return msgspec.structs.replace(described, token_types=0, relative_buckets=32)


def _bert_like(family: str, fields: _Bert, position_offset: int = 0) -> EncoderDescription:
    if fields.position_embedding_type not in (None, "absolute"):
        raise ModelUnsupported(
            f"position_embedding_type {fields.position_embedding_type!r} is not supported; supported is 'absolute'"
        )
    if fields.is_decoder:
        raise ModelUnsupported("is_decoder is true: a decoder's causal attention is not supported, encoders are")
    return EncoderDescription(
        family=family,
        vocab_size=fields.vocab_size,
        hidden=fields.hidden_size,
        heads=fields.num_attention_heads,
        intermediate=fields.intermediate_size,
        max_positions=fields.max_position_embeddings - position_offset,
        layers=(LayerSpec(),) * fields.num_hidden_layers,
        position_offset=position_offset,
        token_types=fields.type_vocab_size,
        norm_eps=fields.layer_norm_eps,
        activation=_activation(fields.hidden_act),
    )


def _distilbert(config: Mapping[str, Any]) -> EncoderDescription:
    fields = _parse(config, _DistilBert)
    return EncoderDescription(
        family="distilbert",
        vocab_size=fields.vocab_size,
        hidden=fields.dim,
        heads=fields.n_heads,
        intermediate=fields.hidden_dim,
        max_positions=fields.max_position_embeddings,
        layers=(LayerSpec(),) * fields.n_layers,
        activation=_activation(fields.activation),
    )


def _modernbert(config: Mapping[str, Any]) -> EncoderDescription:
    fields = _parse(config, _ModernBert)
    if config.get("local_rope_theta", 0) is None:
        # Before transformers 5 a null here meant the base of the other layers.
        fields.local_rope_theta = fields.global_rope_theta
    return EncoderDescription(
        family="modernbert",
        vocab_size=fields.vocab_size,
        hidden=fields.hidden_size,
        heads=fields.num_attention_heads,
        intermediate=fields.intermediate_size,
        max_positions=fields.max_position_embeddings,
        layers=_modernbert_layers(fields),
        positions=Positions.ROTARY,
        norm_placement=NormPlacement.PRE,
        norm_eps=fields.norm_eps,
        norm_bias=fields.norm_bias,
        activation=_activation(fields.hidden_activation),
        gated=True,
        attention_bias=fields.attention_bias,
        mlp_bias=fields.mlp_bias,
    )


def _modernbert_layers(fields: _ModernBert) -> tuple[LayerSpec, ...]:
    types = fields.layer_types or [
        "sliding_attention" if index % fields.global_attn_every_n_layers else "full_attention"
        for index in range(fields.num_hidden_layers)
    ]
    if len(types) != fields.num_hidden_layers:
        raise ModelBroken(f"config.json: {len(types)} layer_types for {fields.num_hidden_layers} layers")
    if unknown := set(types) - {"sliding_attention", "full_attention"}:
        raise ModelUnsupported(f"layer_types {sorted(unknown)}; supported are full_attention and sliding_attention")
    thetas = {
        "full_attention": _rope_theta(fields, "full_attention", fields.global_rope_theta),
        "sliding_attention": _rope_theta(fields, "sliding_attention", fields.local_rope_theta),
    }
    # local_attention is the whole window, of which half lies on either side.
    return tuple(
        LayerSpec(
            window=fields.local_attention // 2 if kind == "sliding_attention" else None,
            rope_theta=thetas[kind],
            attention_norm=index > 0,
        )
        for index, kind in enumerate(types)
    )


def _rope_theta(fields: _ModernBert, kind: str, default: float) -> float:
    parameters = (fields.rope_parameters or {}).get(kind) or {}
    for rope in (parameters, fields.rope_scaling or {}):
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type != "default":
            raise ModelUnsupported(f"rope_type {rope_type!r} is not supported; supported is 'default'")
    return float(parameters.get("rope_theta", default))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], EncoderDescription]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
    "modernbert": _modernbert,
}


def supported_model_types() -> tuple[str, ...]:
    """The ``model_type`` values that ``describe`` reads."""
    return tuple(_READERS)


def _parse(config: Mapping[str, Any], fields: type[T]) -> T:
    # A null stands for the default in configs that old versions of transformers wrote.
    try:
        return msgspec.convert({k: v for k, v in config.items() if v is not None}, fields)
    except msgspec.ValidationError as error:
        raise ModelBroken(f"config.json: {error}") from error


def _activation(name: str) -> Activation:
    activation = _ACTIVATIONS.get(name)
    if activation is None:
        raise ModelUnsupported(f"activation {name!r} is not supported; supported are {', '.join(_ACTIVATIONS)}")
    return activation


def _refuse_remote_code(config: Mapping[str, Any]) -> None:
    # The class name proves nothing here: checkpoints call themselves BertModel and add ALiBi in their own file.
    auto_map = config.get("auto_map")
    code = [f"{k}: {v}" for k, v in auto_map.items() if k.startswith("AutoModel")] if isinstance(auto_map, dict) else []
    if code:
        raise ModelUnsupported(
            f"the model is defined by Python code in its own repository (auto_map {', '.join(code)}), which Tandem "
            f"does not run; supported are stock models of model_type {', '.join(_READERS)}"
        )


def _check_sizes(d: EncoderDescription) -> None:
    if d.hidden % d.heads or (d.positions is Positions.ROTARY and d.head_dim % 2):
        raise ModelBroken(f"config.json: hidden size {d.hidden} does not divide into {d.heads} heads")
    if d.max_positions < 1:
        raise ModelBroken(f"config.json: the position table leaves no row for text after its first {d.position_offset}")


def _check_dense(d: EncoderDescription) -> None:
    width = d.hidden * len(d.pooling)
    for head in d.dense:
        if head.in_features != width:
            raise ModelBroken(f"{head.path}: a dense head takes {head.in_features} values but is given {width}")
        width = head.out_features
