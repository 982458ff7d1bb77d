"""How long a text may be: the limits that a model's files state, and the one that holds."""

from __future__ import annotations

from tandem.errors import ModelBroken
from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import Pipeline, stated_length

UNSTATED_LIMIT = 512

_POSITION_KEYS = ("max_position_embeddings", "n_positions")
# These number their positions from pad_token_id + 1, so that many rows of the table are never a token's.
_OFFSET_FAMILIES = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text")


def max_tokens(folder: ModelFolder, pipeline: Pipeline) -> int:
    """The longest text that the model takes, in tokens, special tokens counted.

    sentence-transformers' ``max_seq_length`` wins over the tokenizer's ``model_max_length``, as it does there. The rows
    of the position table bound both, as a token past them has no position. ``UNSTATED_LIMIT`` where no file states any.
    Raises ModelBroken for a file that does not make sense.
    """
    tokenizer_config = folder.read_json("tokenizer_config.json") or {}
    stated = pipeline.max_seq_length or stated_length(tokenizer_config.get("model_max_length"))
    limits = [limit for limit in (stated, _positions(folder)) if limit is not None]
    return min(limits) if limits else UNSTATED_LIMIT


def _positions(folder: ModelFolder) -> int | None:
    """How many tokens the position table has rows for; None where there is no table, or none is stated."""
    config = folder.read_json("config.json") or {}
    rows = next((rows for key in _POSITION_KEYS if (rows := stated_length(config.get(key))) is not None), None)
    if rows is None or config.get("model_type") not in _OFFSET_FAMILIES:
        return rows
    pad_id = config.get("pad_token_id")
    usable = rows - (pad_id if isinstance(pad_id, int) else 1) - 1
    if usable < 1:
        raise ModelBroken(f"{folder.path / 'config.json'}: {rows} positions, and pad_token_id {pad_id} takes them all")
    return usable
