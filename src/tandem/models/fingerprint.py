"""What a model's files hash to, cheaply: small files in full, weights by sample."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tandem.errors import ModelBroken

_IN_FULL_BYTES = 32 << 20  # the largest tokenizer.json in use (XLM-R, Gemma) has 17 to 33 MB
_SAMPLE_BYTES = 1024
_BLOCKS = 256
_WEIGHTS = {".safetensors", ".onnx", ".bin"}


class _Span(msgspec.Struct, frozen=True):
    data_offsets: tuple[int, int]


def fingerprint_files(root: Path, relatives: Sequence[str]) -> str:
    """32 hex digits over the files' relative names, sizes and content.

    Of a safetensors file the header is hashed, and of each tensor its first and its middle KB: two fine-tunes of one
    model differ in nothing but numbers, perhaps in a few biases alone, so header and size would not do, and neither
    would blocks at even distances, which miss small tensors. Other weights give 256 blocks of 1 KB at even distances.
    Raises ModelBroken for a file that can not be read.
    """
    digest = hashlib.sha256()
    for relative in relatives:
        path = root / relative
        try:
            with path.open("rb", buffering=0) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                digest.update(f"{len(relative)}:{relative}:{size_bytes}:".encode())
                for begin, end in _spans(path, file.fileno(), size_bytes):
                    digest.update(os.pread(file.fileno(), end - begin, begin))
        except OSError as error:
            raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error
    return digest.hexdigest()[:32]


def _spans(path: Path, fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    if path.suffix == ".safetensors":
        yield from _tensor_spans(path, fd, size_bytes)
    elif path.suffix not in _WEIGHTS and size_bytes <= _IN_FULL_BYTES:
        yield 0, size_bytes
    else:
        step = max(size_bytes // _BLOCKS, _SAMPLE_BYTES)
        for begin in range(0, size_bytes, step):
            yield begin, min(begin + _SAMPLE_BYTES, size_bytes)


def _tensor_spans(path: Path, fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    start = 8 + int.from_bytes(os.pread(fd, 8, 0), "little")
    if start > size_bytes:
        raise ModelBroken(f"{path}: not a safetensors file, or truncated inside its header")
    header = os.pread(fd, start - 8, 8)
    yield 0, start
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        offsets = sorted(msgspec.json.decode(entry, type=_Span).data_offsets for entry in entries.values())
    except msgspec.MsgspecError as error:
        raise ModelBroken(f"{path}: the safetensors header is damaged: {error}") from error
    for begin, end in offsets:
        middle = (begin + end) // 2
        yield start + begin, start + min(begin + _SAMPLE_BYTES, end)
        yield start + middle, start + min(middle + _SAMPLE_BYTES, end)
