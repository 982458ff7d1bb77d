"""Small tokenizers of the three kinds that encoders use, made on the spot from a text of our own.

The trainers for WordPiece and Unigram break ties by hash order, so those two are put together by hand: a test must
see the same tokens in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = (
    "The lighthouse keeper writes down the weather every evening.",
    "Does the ferry still run in winter? It doesn't, we're told.",
    "A cache that fails is a miss with a counter, never an error.",
    "In 2024, 3,417 boats passed the strait; 12 of them were red.",
    "Der Leuchtturmwärter trägt jeden Abend das Wetter in ein großes Buch ein.",
    "L'été dernier, la mer était d'un bleu très clair près des rochers.",
    "El faro está al final del camino, detrás de la iglesia pequeña.",
    "Смотритель маяка каждый вечер записывает погоду в большую книгу.",
    "Ο φάρος βρίσκεται στο τέλος του δρόμου, πίσω από την εκκλησία.",
    "灯塔管理员每天晚上都会记录天气。今天的海面很平静，没有风。",
    "灯台守は毎晩、天気を大きなノートに書きます。海はとても静かです。",
    "등대지기는 매일 저녁 날씨를 적는다. 오늘 바다는 잔잔하다.",
    "يكتب حارس المنارة حالة الطقس كل مساء في كتاب كبير.",
    "שומר המגדלור כותב את מזג האוויר בכל ערב.",
    "लाइटहाउस का रखवाला हर शाम मौसम लिखता है।",
    "ผู้ดูแลประภาคารจดบันทึกสภาพอากาศทุกเย็น",
)


def _words(normalizer: Any, pre_tokenizer: Any) -> list[str]:
    """The words of our text as a tokenizer's model would see them, in order, each once."""
    cut = (pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(sentence)) for sentence in SENTENCES)
    return list(dict.fromkeys(word for words in cut for word, _ in words))


def wordpiece(*, lower: bool = True) -> Tokenizer:
    """As BERT's."""
    normalizer = normalizers.BertNormalizer(lowercase=lower)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = _words(normalizer, pre_tokenizer)
    letters = sorted({letter for word in words for letter in word})
    # Only every other word whole, so that the others come in pieces.
    tokens = [
        *letters,
        *(f"##{letter}" for letter in letters),
        *words[::2],
        *(f"##{word[-3:]}" for word in words[1::2]),
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(special + tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_bpe(*, size: int = 700, add_prefix_space: bool = False) -> Tokenizer:
    """As RoBERTa's, its mask token that swallows the space before it included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, add_prefix_space)
    return tokenizer


def unigram(*, normalizer: Any = None) -> Tokenizer:
    """As XLM-R's: words split at white space, then marked with a leading U+2581."""
    runs = normalizers.Replace(Regex(" {2,}"), " ")
    normalizer = normalizer or normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), runs])
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    words = _words(normalizer, pre_tokenizer)
    letters = sorted({letter for word in words for letter in word})
    longer = dict.fromkeys([*words[::2], *(part for word in words[1::2] for part in (word[:3], word[3:])), "\u2581"])
    pieces = [(letter, -9.0) for letter in letters] + [(p, -5.0 - 0.1 * len(p)) for p in longer if len(p) > 1]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, unk_id=3))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def metaspace_bpe(*, size: int = 500) -> Tokenizer:
    """As the sentencepiece BPE models': spaces are part of words, one special token, and that at the end."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": wordpiece,
    "byte-bpe": byte_bpe,
    "byte-bpe-prefix-space": lambda: byte_bpe(add_prefix_space=True),
    "unigram": unigram,
    "metaspace-bpe": metaspace_bpe,
}
