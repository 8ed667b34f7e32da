"""Settings of the item index."""

from typing import Literal

from pydantic import Field

from retrieval.core.settings import Settings


class IndexSettings(Settings):
    """How items are indexed and searched.

    factory: `exact` (this package's blocked search) or any FAISS factory string, such as `Flat` or `IVF1024,Flat`.
    nprobe: lists visited by an IVF index. ef_search: queue length of an HNSW index.
    device: `auto` takes a GPU when this FAISS has one and says so; `gpu` insists on one.
    train_sample: vectors that training may look at, 0 for all of them.
    min_recall: build-index fails below this recall against exact search, 0 for no gate.
    over_fetch: hits asked for beyond what is needed, so that re-scoring decides about near ties.
    threads: 0 for all cores. block_mb: memory of a thread's block of scores in exact search;
    a block that fits the cache is the fastest.
    """

    factory: str = Field(default="Flat", min_length=1)
    nprobe: int = Field(default=32, ge=1)
    ef_search: int = Field(default=128, ge=1)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    train_sample: int = Field(default=0, ge=0)
    min_recall: float = Field(default=0.0, ge=0.0, le=1.0)
    over_fetch: int = Field(default=16, ge=0)
    threads: int = Field(default=0, ge=0)
    block_mb: int = Field(default=1, ge=1)
