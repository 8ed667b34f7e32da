"""Seconds and memory of building an index, from 10^4 to 10^7 items x 64.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/index_build.py                              # 10^4, 10^5, 10^6
    OMP_WAIT_POLICY=PASSIVE python benchmarks/index_build.py 10000000 --codes SQ8 --lists 1024    # 2.6 GB of vectors, mapped
    OMP_WAIT_POLICY=PASSIVE python benchmarks/index_build.py 10000 100000 1000000 10000000 --codes SQ8 --plot growth.html

Each size and code runs in a process of its own, so that its peak resident memory is its own. The vectors lie in a file and are
mapped, as build-index maps them; `beyond` is the peak less the resident memory before the build and less the vectors themselves.
CPU seconds of one thread. `IVF`: as many lists as the power of two nearest to twice the root of the items.
"""

import argparse
import math
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

DIMENSION, CLUSTERS = 64, 4096
BLOCK = 1 << 16


def write_vectors(path: Path, items: int) -> None:
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLUSTERS, DIMENSION)).astype(np.float32)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, DIMENSION))
    for first in range(0, items, BLOCK):
        count = min(BLOCK, items - first)
        vectors[first : first + count] = centres[random.integers(0, CLUSTERS, count)]
        vectors[first : first + count] += 0.7 * random.standard_normal((count, DIMENSION), dtype=np.float32)
    vectors.flush()


def build(folder: str, factory: str) -> dict:
    from retrieval.core.resources import measured
    from retrieval.index.settings import IndexSettings
    from retrieval.index.table import build_index

    vectors = np.load(Path(folder) / "items.npy", mmap_mode="r")
    settings = IndexSettings(factory=factory, device="cpu", threads=1)
    # The library's own memory is not the build's.
    build_index(np.asarray(vectors[:64]), settings.model_copy(update={"factory": "Flat"}))
    with measured() as usage:
        before = resident_bytes()
        start = time.process_time()
        build_index(vectors, settings, scratch(folder, factory)).write(Path(folder) / "index")
        seconds = time.process_time() - start
    size = (Path(folder) / "index").stat().st_size
    return {"seconds": seconds, "beyond": usage.peak_memory_bytes - before - vectors.nbytes, "index": size}


def scratch(folder: str, factory: str) -> Path:
    path = Path(folder) / factory
    path.mkdir()
    return path


def resident_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def draw(found: list[dict], path: Path) -> None:
    """Seconds and memory over the items, a line a code, both axes in powers of ten."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=["CPU seconds", "MB beyond the vectors"])
    codes = sorted({each["code"] for each in found})
    for column, name in enumerate(("seconds", "beyond"), start=1):
        for number, code in enumerate(codes):
            rows = [each for each in found if each["code"] == code]
            style = {"name": code, "mode": "lines+markers", "legendgroup": code, "showlegend": column == 1}
            style |= {"marker_symbol": number, "line_color": ("#0072B2", "#D55E00", "#009E73", "#CC79A7")[number % 4]}
            scale = 1.0 if name == "seconds" else 1e6
            figure.add_scatter(x=[each["items"] for each in rows], y=[each[name] / scale for each in rows], row=1, col=column, **style)
    figure.update_xaxes(type="log", dtick=1, title="items").update_yaxes(type="log", dtick=1)
    figure.write_html(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--codes", nargs="+", default=["Flat", "SQ8"])
    parser.add_argument("--lists", type=int, default=0, help="default: the power of two nearest to twice the root of the items")
    parser.add_argument("--folder", type=Path, default=None, help="where the vectors are written; default: a temporary folder")
    parser.add_argument("--plot", type=Path, default=None, help="an HTML page with the growth drawn")
    options = parser.parse_args()
    rows = []
    for items in options.items:
        lists = options.lists or 2 ** round(math.log2(2 * math.sqrt(items)))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_vectors(Path(folder) / "items.npy", items)
            for code in options.codes:
                factory = f"IVF{lists},{code}"
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found = pool.apply(build, (folder, factory))
                rows.append({"items": items, "code": code, **found})
                each = f"{found['seconds']:.1f} | {found['seconds'] / items * 1e6:.1f}"
                print(f"| {items:,} | {factory} | {each} | {found['index'] / 1e6:,.0f} | {found['beyond'] / 1e6:,.0f} |", flush=True)
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
