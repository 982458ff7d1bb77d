"""What a sentence-transformers folder says beside its weights: pooling, dense heads, prompts, lengths.

Sources: the files that sentence-transformers 2 to 6 write (``modules.json``, ``N_Pooling/config.json``,
``N_Dense/config.json``, ``sentence_bert_config.json``, ``config_sentence_transformers.json``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import msgspec

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.folder import ModelFolder

Json: TypeAlias = dict[str, Any]

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")
ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}
SUPPORTED_MODULES = "Transformer, Pooling, then Dense and Dropout in any number, then Normalize"

# In the order in which sentence-transformers concatenates, whatever the order in the file.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES = {name: name for name in POOLINGS} | {"mean_sqrt_len_tokens": "mean_sqrt_len", "lasttoken": "last"}

# Each family of the early days had its own file name; the content is the same. The first that is there counts.
_TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# sentence-transformers gives every model these two prompts, empty unless the model says otherwise.
_BUILT_IN_PROMPTS = ("query", "document")

# transformers writes int(1e30) for "no limit"; older tools wrote other absurd numbers.
_NO_LIMIT = 10_000_000


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

    ``pooling`` holds names out of ``POOLINGS``; several are concatenated in this order. ``include_prompt`` False
    leaves the prompt's tokens out of pooling. ``normalize`` is the trailing Normalize, applied at the engine's exit.
    ``max_seq_length`` is sentence-transformers' own limit in tokens, special tokens counted; ``lengths.max_tokens``
    gives the one that holds. ``prompts`` has no null in it: an absent prompt is the empty string. ``do_lower_case``
    asks for lower case before the tokenizer's own normalising.
    """

    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[DenseSpec, ...] = ()
    normalize: bool = False
    max_seq_length: int | None = None
    prompts: dict[str, str] = msgspec.field(default_factory=dict)
    default_prompt_name: str | None = None
    do_lower_case: bool = False


class _Module(msgspec.Struct, frozen=True):
    """One entry of ``modules.json``; ``kind`` is the last component of its type."""

    kind: str
    path: str


def read_pipeline(folder: ModelFolder) -> Pipeline:
    """What the folder's side files ask for; a plain transformers folder gets mean pooling.

    Raises ModelUnsupported naming the module or setting that Tandem does not build, ModelBroken for a file that is
    missing or does not make sense.
    """
    modules = _modules(folder)
    if modules is None:
        pooling, include_prompt = _lone_pooling(folder)
        pipeline = Pipeline(pooling=pooling, include_prompt=include_prompt)
    else:
        pipeline = _assemble(folder, modules)
    prompts, default_prompt_name = _prompts(folder)
    max_seq_length, do_lower_case = _transformer_settings(folder)
    return msgspec.structs.replace(
        pipeline,
        max_seq_length=max_seq_length,
        do_lower_case=do_lower_case,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
    )


def stated_length(value: object) -> int | None:
    """A length as files state it; None for absent, infinite and absurd ones. Floats occur: ``1e30``, ``512.0``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < _NO_LIMIT:
        return None
    return int(value)


def _modules(folder: ModelFolder) -> list[_Module] | None:
    """``modules.json`` in order, None where the folder has none (plain transformers)."""
    entries = folder.read_json_list("modules.json")
    if entries is None:
        return None
    where = folder.path / "modules.json"
    modules = []
    for entry in entries:
        kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelBroken(f"{where}: each module needs a type and a path, got {entry!r}")
        # The rest of the dotted path moved twice between releases. A foreign root is code that comes with the model.
        if not kind.startswith("sentence_transformers."):
            raise ModelUnsupported(
                f"{where}: module {kind!r} is the model's own code, which Tandem does not run; "
                f"supported are sentence-transformers' {SUPPORTED_MODULES}"
            )
        modules.append(_Module(kind.rpartition(".")[2], path))
    return modules


def _assemble(folder: ModelFolder, modules: list[_Module]) -> Pipeline:
    """Walk the modules in order; anything but the supported order is refused."""
    where = folder.path / "modules.json"
    if [module.kind for module in modules[:2]] != ["Transformer", "Pooling"]:
        found = ", ".join(module.kind for module in modules) or "none"
        raise ModelUnsupported(f"{where}: modules are {found}; supported are {SUPPORTED_MODULES}")
    if modules[0].path:
        raise ModelUnsupported(
            f"{where}: the encoder lies in the subfolder {modules[0].path!r}; supported are folders with it at the top"
        )
    pooling, include_prompt = _pooling(folder, modules[1].path)
    dense: list[DenseSpec] = []
    normalize = False
    for module in modules[2:]:
        if module.kind == "Normalize":
            _check_features(folder, module)
            normalize = True
        elif module.kind == "Dense" and not normalize:
            dense.append(_dense(folder, module))
        elif module.kind != "Dropout":
            place = " after Normalize" if normalize else ""
            raise ModelUnsupported(f"{where}: module {module.kind!r}{place}; supported are {SUPPORTED_MODULES}")
    for first, second in pairwise(dense):
        if first.out_features != second.in_features:
            raise ModelBroken(
                f"{folder.path}: {first.path} gives {first.out_features}, {second.path} takes "
                f"{second.in_features} features"
            )
    return Pipeline(pooling=pooling, include_prompt=include_prompt, dense=tuple(dense), normalize=normalize)


def _lone_pooling(folder: ModelFolder) -> tuple[tuple[str, ...], bool]:
    """Without ``modules.json``: the usual pooling file if there is one, else the last token of a causal language
    model and the mean of all others, as sentence-transformers does."""
    if folder.file("1_Pooling/config.json") is not None:
        return _pooling(folder, "1_Pooling")
    config = folder.read_json("config.json") or {}
    architectures = config.get("architectures") or [""]
    causal = str(architectures[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return ("last",) if causal else ("mean",), True


def _pooling(folder: ModelFolder, path: str) -> tuple[tuple[str, ...], bool]:
    """(modes, include_prompt) of either form of pooling file: ``pooling_mode`` wins over the booleans, none is mean."""
    config = _module_config(folder, path)
    stated = config.get("pooling_mode")
    if stated is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    else:
        names = [stated] if isinstance(stated, str) else stated
        if not isinstance(names, list) or not names:
            raise ModelBroken(f"{folder.path / path / 'config.json'}: pooling_mode is {stated!r}")
        modes = [_POOLING_NAMES.get(name, "") if isinstance(name, str) else "" for name in names]
        if "" in modes:
            raise ModelUnsupported(
                f"{folder.path / path / 'config.json'}: pooling {names[modes.index('')]!r}; "
                f"supported are {', '.join(POOLINGS)}"
            )
    include_prompt = config.get("include_prompt")
    return tuple(modes), True if include_prompt is None else bool(include_prompt)


def _dense(folder: ModelFolder, module: _Module) -> DenseSpec:
    config = _module_config(folder, module.path)
    where = folder.path / module.path / "config.json"
    _check_features(folder, module)
    if config.get("use_residual"):
        raise ModelUnsupported(f"{where}: a Dense with use_residual; supported are those without")
    sizes = config.get("in_features"), config.get("out_features")
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ModelBroken(f"{where}: in_features and out_features are {sizes[0]!r} and {sizes[1]!r}")
    # Absent means Tanh and null means none, which is how the module's constructor reads them.
    dotted = config.get("activation_function", "torch.nn.modules.activation.Tanh") or "Identity"
    activation = ACTIVATIONS.get(str(dotted).rpartition(".")[2])
    if activation is None:
        raise ModelUnsupported(f"{where}: activation {dotted!r}; supported are {', '.join(ACTIVATIONS)}")
    return DenseSpec(
        path=module.path,
        in_features=config["in_features"],
        out_features=config["out_features"],
        bias=bool(config.get("bias", True)),
        activation=activation,
    )


def _check_features(folder: ModelFolder, module: _Module) -> None:
    """Refuse a module that works on anything but the pooled row (multi-vector models project every token)."""
    config = folder.read_json(_config_of(module.path)) or {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise ModelUnsupported(
                f"{folder.path / module.path / 'config.json'}: {module.kind} with {key} {config[key]!r}; "
                "supported is sentence_embedding alone"
            )


def _module_config(folder: ModelFolder, path: str) -> Json:
    config = folder.read_json(_config_of(path))
    if config is None:
        raise ModelBroken(f"{folder.path / _config_of(path)}: missing, and modules.json names it")
    return config


def _config_of(path: str) -> str:
    return f"{path}/config.json" if path else "config.json"


def _prompts(folder: ModelFolder) -> tuple[dict[str, str], str | None]:
    name = "config_sentence_transformers.json"
    config = folder.read_json(name) or {}
    kind = config.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise ModelUnsupported(f"{folder.path / name}: a {kind} model; supported are SentenceTransformer models")
    stated = config.get("prompts") or {}
    if not isinstance(stated, dict) or not all(text is None or isinstance(text, str) for text in stated.values()):
        raise ModelBroken(f"{folder.path / name}: prompts must map names to texts, got {stated!r}")
    prompts = {str(key): text or "" for key, text in stated.items()}
    default = config.get("default_prompt_name")
    if default is None:
        return prompts, None
    if default in _BUILT_IN_PROMPTS:
        prompts.setdefault(default, "")
    if default not in prompts:
        known = ", ".join(prompts) or "none"
        raise ModelBroken(f"{folder.path / name}: default_prompt_name {default!r} is not among its prompts: {known}")
    return prompts, default


def _transformer_settings(folder: ModelFolder) -> tuple[int | None, bool]:
    """(max_seq_length, do_lower_case). Newer releases write neither, and keep the length in tokenizer_config.json."""
    name = next((name for name in _TRANSFORMER_FILES if folder.file(name) is not None), None)
    config = (folder.read_json(name) if name else None) or {}
    where = folder.path / str(name)
    task = config.get("transformer_task") or "feature-extraction"
    output = config.get("module_output_name") or "token_embeddings"
    if task != "feature-extraction" or output != "token_embeddings":
        raise ModelUnsupported(
            f"{where}: transformer_task {task!r} with output {output!r}; "
            "supported is feature-extraction of token_embeddings"
        )
    if "message" in (config.get("modality_config") or {}):
        raise ModelUnsupported(f"{where}: texts go through a chat template; supported are plain texts")
    text = (config.get("processing_kwargs") or {}).get("text") or {}
    stated = stated_length(text.get("max_length")) or stated_length(config.get("max_seq_length"))
    return stated, bool(config.get("do_lower_case"))
