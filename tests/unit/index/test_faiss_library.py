"""Which FAISS is installed, whether it loads, and what it can do."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from retrieval.core.errors import ResourceError
from retrieval.index.faiss import library as faiss_library
from retrieval.stages import doctor

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fresh(monkeypatch):
    """Nothing remembered about the library, before and after."""
    functions = (faiss_library.faiss_library, faiss_library.installed_packages)
    for function in functions:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in functions:
        function.cache_clear()


def install(folder: Path, name: str, *files: str) -> None:
    """Lay down what pip leaves of a distribution."""
    information = folder / f"{name.replace('-', '_')}-9.9.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    (information / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_two_builds_of_faiss_over_each_other_are_found_by_their_files(fresh, tmp_path):
    install(tmp_path, "faiss-gpu", "faiss/__init__.py")
    install(tmp_path, "faiss-cpu", "faiss/__init__.py", "faiss/loader.py")
    install(tmp_path, "faiss-gpu-shim", "shim.py")
    install(tmp_path, "faiss-haystack", "faiss/__init__.py")
    fresh.setattr(sys, "path", [str(tmp_path)])
    assert faiss_library.installed_packages() == ("faiss-cpu", "faiss-gpu")
    with pytest.raises(ResourceError, match=r"faiss-cpu and faiss-gpu overwrite each other.*pip uninstall faiss-cpu faiss-gpu") as caught:
        faiss_library.faiss_library()
    assert caught.value.exit_code == 6


def test_a_package_without_a_list_of_files_is_taken_at_its_name(fresh, tmp_path):
    install(tmp_path, "faiss", "x")
    (tmp_path / "faiss-9.9.dist-info" / "RECORD").unlink()
    fresh.setattr(sys, "path", [str(tmp_path)])
    assert faiss_library.installed_packages() == ("faiss",)


@pytest.mark.parametrize(
    ("installed", "module", "reason"),
    [
        ((), "raise ImportError('No module')", "is not installed"),
        (("faiss-cpu",), "raise ImportError('libopenblas')", "does not load: libopenblas"),
        (
            ("faiss-gpu",),
            "raise RuntimeError('faiss-gpu installed but CUDA is missing\\nmore')",
            "does not load: faiss-gpu installed but CUDA",
        ),
    ],
)
def test_a_faiss_that_is_missing_or_broken_is_a_resource_error_of_one_line(fresh, tmp_path, installed, module, reason):
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text(module)
    fresh.setattr(sys, "path", [str(tmp_path), *sys.path])
    fresh.delitem(sys.modules, "faiss", raising=False)
    fresh.setattr(faiss_library, "installed_packages", lambda: installed)
    with pytest.raises(ResourceError, match=f"FAISS {reason}.*index.factory = 'exact'") as caught:
        faiss_library.faiss_library()
    assert "\n" not in str(caught.value)


def test_doctor_goes_on_where_faiss_is_broken(fresh):
    def broken():
        raise ResourceError("FAISS does not load: because")

    fresh.setattr(doctor, "gpu_count", broken)
    found = doctor.examine()
    assert found["faiss"] == {"packages": list(faiss_library.installed_packages())}
    assert any("does not load: because" in line for line in found["missing"])


def test_doctor_says_what_the_build_can_do():
    found = doctor.examine()["faiss"]
    assert {"Flat", "IVF", "SQ8", "PQ fast-scan", "RaBitQ", "HNSW", "OPQ", "refine"} <= set(found["has"])
    assert set(found["has"]) | set(found["has_not"]) == set(faiss_library.kinds())
    if found["packages"] == ["faiss-cpu"]:
        assert "CAGRA on a GPU" in found["has_not"]
        assert found["gpus"] == 0


@pytest.mark.parametrize(("gpus", "fault", "seen", "line"), [(1, "no kernel image", True, "no kernel image"), (0, "", True, "uses no GPU")])
def test_doctor_names_a_gpu_that_lies_idle(fresh, gpus, fault, seen, line):
    cuda = SimpleNamespace(is_available=lambda: seen)
    fresh.setattr(doctor, "gpu_fault", lambda: fault)
    fresh.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert [line in said for said in doctor._unused_gpus(gpus)] == [True]
    cuda.is_available = lambda: False
    assert doctor._unused_gpus(0) == []


def test_no_faiss_among_the_core_dependencies_and_its_builds_are_declared_as_conflicting():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not [name for name in project["project"]["dependencies"] if name.startswith("faiss")]
    extras = project["project"]["optional-dependencies"]
    with_faiss = {name for name, wanted in extras.items() if any(one.startswith("faiss") for one in wanted)}
    assert with_faiss == {"cpu", "gpu", "cuvs"}
    assert [{one["extra"] for one in group} for group in project["tool"]["uv"]["conflicts"]] == [with_faiss]


def test_everything_but_faiss_is_importable_without_faiss():
    code = (
        "import sys; sys.modules['faiss'] = None; import retrieval.stages.run, retrieval.cli.main, retrieval.stages.doctor as d;"
        "print([line for line in d.examine()['missing'] if line.startswith('faiss')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "does not load" in shown
