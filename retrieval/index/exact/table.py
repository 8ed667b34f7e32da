"""The engines by name, those that are fastest where they run first; one that pays for large indexes only is last."""

from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.engines import AbstractEngine, NumpyEngine, TorchEngine
from retrieval.index.exact.native.engines import AmxEngine, DotEngine, FmaEngine

ENGINES: dict[str, type[AbstractEngine]] = {
    engine.name: engine for engine in (AmxEngine, DotEngine, FmaEngine, TorchEngine, NumpyEngine, CudaEngine)
}
