"""Settings of the item index."""

from typing import Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.index.choice.settings import ChoiceSettings


class IndexSettings(Settings):
    """How items are indexed and searched.

    factory: `exact` (this package's own search, which needs no FAISS) or any FAISS factory string, such as `Flat` or `IVF1024,Flat`.
    nprobe: lists visited by an IVF index. ef_search: queue length of a graph's search, ef_construction of its building.
    refine_factor: hits that a refiner re-scores, as a multiple of those asked for.
    device: `auto` takes a GPU when this FAISS has one and says so; `gpu` insists on one.
    train_sample: vectors that training may look at, 0 for 50 a list and at least 65,536.
    mmap: leave the index in its file and let the system page it in; processes share it, and nothing can be added.
    rebuild_share: rows removed and added, as a share of those it was built with, past which an index should be built anew.
    min_recall: build-index fails below this recall against exact search, 0 for no gate.
    over_fetch: hits asked for beyond what is needed, so that re-scoring decides about near ties.
    choose: by what an index is chosen instead of by `factory`, where it names a target.
    threads: 0 for all cores. block_mb: memory of a thread's block of scores in exact search;
    a block that fits the cache is the fastest.
    engine: what multiplies in exact search. `auto` takes the fastest that is here, found by letting each search for a
    moment; results are the same bytes with any of them.
    """

    factory: str = Field(default="exact", min_length=1)
    nprobe: int = Field(default=32, ge=1)
    ef_search: int = Field(default=128, ge=1)
    ef_construction: int = Field(default=100, ge=1)
    refine_factor: float = Field(default=8.0, ge=1.0)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    train_sample: int = Field(default=0, ge=0)
    mmap: bool = False
    rebuild_share: float = Field(default=0.2, ge=0.0)
    min_recall: float = Field(default=0.0, ge=0.0, le=1.0)
    over_fetch: int = Field(default=16, ge=0)
    choose: ChoiceSettings = ChoiceSettings()
    threads: int = Field(default=0, ge=0)
    block_mb: int = Field(default=1, ge=1)
    engine: Literal["auto", "amx", "avx512-bf16", "float32", "torch", "numpy", "cuda"] = "auto"

    @model_validator(mode="after")
    def _engine_runs_on_the_device(self) -> "IndexSettings":
        if self.engine != "auto" and self.device != "auto" and (self.engine == "cuda") != (self.device == "gpu"):
            raise ValueError(f"engine = '{self.engine}' does not run on device = '{self.device}'; expected one of them to be 'auto'")
        return self
