"""Bulk embedding: a file of texts in, a file of vectors out, in constant memory, to be gone on with after any crash."""

from __future__ import annotations

from tandem.bulk.base import ReaderFactory, WriterFactory
from tandem.registry import Registry

readers: Registry[ReaderFactory] = Registry("input format")
readers.register("txt", "tandem.bulk.txt:TxtReader")
readers.register("jsonl", "tandem.bulk.jsonl:JsonlReader")
readers.register("csv", "tandem.bulk.csv_file:CsvReader")
readers.register("parquet", "tandem.bulk.parquet:ParquetReader")

writers: Registry[WriterFactory] = Registry("output format")
writers.register("parquet", "tandem.bulk.parquet:ParquetWriter")
writers.register("npy", "tandem.bulk.npy:NpyWriter")
writers.register("jsonl", "tandem.bulk.jsonl:JsonlWriter")

__all__ = ["readers", "writers"]
