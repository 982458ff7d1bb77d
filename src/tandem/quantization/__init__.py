"""Codecs of rows by name."""

from __future__ import annotations

from collections.abc import Callable

from tandem.quantization.base import RowCodec, RowReader
from tandem.registry import Registry

ROW_CODECS: Registry[Callable[[], RowCodec]] = Registry("row codec")
ROW_CODECS.register("float32", "tandem.quantization.float32:Float32Codec")
ROW_CODECS.register("int16", "tandem.quantization.scaled:Int16Codec")
ROW_CODECS.register("int8", "tandem.quantization.scaled:Int8Codec")

__all__ = ["ROW_CODECS", "RowCodec", "RowReader"]
