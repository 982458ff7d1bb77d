"""From a model's folder to a ready ``tokenizers.Tokenizer``, and what it puts around a text.

``tokenizer.json`` is used where there is one. Without it, a ``vocab.txt`` makes BERT's WordPiece. What
``tokenizer_config.json`` says about case, accents and Chinese characters wins over ``tokenizer.json``, as it does in
transformers 4 and 5, so that vectors are those of sentence-transformers.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.folder import ModelFolder

# The classes whose vocab.txt is plain WordPiece; BertJapanese, Bertweet and Esm have a vocab.txt that is not.
_WORDPIECE_CLASSES = frozenset(
    {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "MPNetTokenizer"}
)
_BERT_TOKENS = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_MPNET_TOKENS = {"unk": "[UNK]", "pad": "<pad>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
# tokenizer_config.json's key -> BertNormalizer's attribute.
_NORMALIZER_KEYS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# These classes take tokenizer.json as it is and ignore the keys above.
_GENERIC_CLASSES = frozenset({"PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend"})
_CONVERT = "transformers writes one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
_OTHER_FORMATS = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json", "bpe.codes")


class Frame(msgspec.Struct, frozen=True):
    """The special tokens that the model wants around every text; most have one at each end, some none."""

    prefix: list[int]
    suffix: list[int]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


def load_tokenizer(folder: ModelFolder, *, do_lower_case: bool = False) -> Tokenizer:
    """The folder's tokenizer without the truncation and padding that its file may have baked in.

    ``do_lower_case`` is ``Pipeline.do_lower_case``: lower case before any other normalising. Raises ModelBroken for
    files that are missing or can not be read, ModelUnsupported for a format other than the two.
    """
    config = folder.read_json("tokenizer_config.json") or {}
    if folder.file("tokenizer.json") is not None:
        tokenizer = _from_json(folder)
        _apply_config(tokenizer, config)
    elif folder.file("vocab.txt") is not None:
        tokenizer = _from_vocab(folder, config)
    else:
        raise _no_tokenizer(folder)
    # MiniLM's file pads every text to 128 tokens and cuts it there: both are the caller's business.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if do_lower_case:
        _lower_first(tokenizer)
    return tokenizer


def special_frame(tokenizer: Tokenizer, name: str) -> Frame:
    """What the tokenizer puts before and after a text, found by asking it. ``name`` is the model's, for the error.

    Asked rather than read, as the template has five forms that nest. Raises ModelBroken when no text gives a token.
    """
    for probe in ("a", "the", "1", *islice(tokenizer.get_vocab(), 1000)):
        encoding = tokenizer.encode(probe)
        special = encoding.special_tokens_mask
        if 0 in special:
            first, last = special.index(0), len(special) - special[::-1].index(0)
            return Frame(prefix=encoding.ids[:first], suffix=encoding.ids[last:])
    raise ModelBroken(f"{name}: the tokenizer makes no token out of any text")


def pad_id(folder: ModelFolder, tokenizer: Tokenizer) -> int:
    """The id that fills a batch: the tokenizer's pad token, else the model's ``pad_token_id``, else 0."""
    token = _special_tokens(folder, folder.read_json("tokenizer_config.json") or {}).get("pad")
    found = tokenizer.token_to_id(token) if token else None
    if found is None:
        found = (folder.read_json("config.json") or {}).get("pad_token_id")
    return found if isinstance(found, int) else 0


def _from_json(folder: ModelFolder) -> Tokenizer:
    path = folder.require("tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    # The library raises bare Exception for every fault of the file, so nothing narrower catches them.
    except Exception as error:
        raise ModelBroken(f"{path}: not a tokenizer that can be read: {error}") from error


def _apply_config(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """Let ``tokenizer_config.json`` settle what it states; a key that is absent or null leaves the normalizer alone."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer) or config.get("tokenizer_class") in _GENERIC_CLASSES:
        return
    for key, attribute in _NORMALIZER_KEYS.items():
        if config.get(key) is not None:
            setattr(normalizer, attribute, bool(config[key]))
    tokenizer.normalizer = normalizer


def _from_vocab(folder: ModelFolder, config: dict[str, Any]) -> Tokenizer:
    path = folder.require("vocab.txt")
    kind = str(config.get("tokenizer_class") or "BertTokenizer").removesuffix("Fast")
    if kind not in _WORDPIECE_CLASSES:
        raise ModelUnsupported(
            f"{path}: a vocabulary of {kind} without tokenizer.json; supported without it are "
            f"{', '.join(sorted(_WORDPIECE_CLASSES))}. {_CONVERT}"
        )
    try:
        # Only "\n" ends a line: a vocabulary may hold U+2028 and other characters that splitlines() splits at.
        lines = (folder.read_bytes("vocab.txt") or b"").decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelBroken(f"{path}: not UTF-8: {error}") from error
    vocab = {line.removesuffix("\r"): index for index, line in enumerate(lines)}
    tokens = (_MPNET_TOKENS if kind == "MPNetTokenizer" else _BERT_TOKENS) | _special_tokens(folder, config)
    missing = [tokens[role] for role in ("unk", "cls", "sep") if tokens[role] not in vocab]
    if missing:
        raise ModelBroken(f"{path}: {len(vocab)} tokens, and {', '.join(missing)} is not among them")
    return _wordpiece(vocab, tokens, config)


def _wordpiece(vocab: dict[str, int], tokens: dict[str, str], config: dict[str, Any]) -> Tokenizer:
    """BERT's tokenizer; the defaults are those of transformers' BertTokenizer."""
    tokenizer = Tokenizer(WordPiece(vocab, unk_token=tokens["unk"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True) is not False,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True) is not False,
        strip_accents=config.get("strip_accents"),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    cls, sep = tokens["cls"], tokens["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in tokens.values() if t in vocab])
    return tokenizer


def _special_tokens(folder: ModelFolder, config: dict[str, Any]) -> dict[str, str]:
    """Role (``pad``, ``cls``, ...) -> token, as the two files state it; a token is a string or an object."""
    found = {}
    for source in (folder.read_json("special_tokens_map.json") or {}, config):
        for role in _BERT_TOKENS:
            token = source.get(f"{role}_token")
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                found[role] = content
    return found


def _lower_first(tokenizer: Tokenizer) -> None:
    """Rust's lower case, put before the rest: what sentence-transformers does, final sigmas included."""
    present = tokenizer.normalizer
    lower = normalizers.Lowercase()
    tokenizer.normalizer = lower if present is None else normalizers.Sequence([lower, present])


def _no_tokenizer(folder: ModelFolder) -> Exception:
    found = [name for name in _OTHER_FORMATS if folder.file(name) is not None]
    if found:
        return ModelUnsupported(
            f"{folder.path}: {', '.join(found)} without tokenizer.json; supported are tokenizer.json and BERT's "
            f"vocab.txt. {_CONVERT}"
        )
    return ModelBroken(f"{folder.path / 'tokenizer.json'}: missing, and there is no vocab.txt either")
