"""The package as a whole: imports, public names, registry, wheel."""

import ast
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import sciseq
from sciseq.registry import METHODS, method_by_class_name, method_by_name, stub

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sciseq"

# --- Import direction ----------------------------------------------------------------

# A module imports from earlier levels and from its own room, nothing else. Rooms that
# share a level do not know each other. "sciseq" is the package's own __init__.
LEVELS = (
    ("registry",),
    ("errors",),
    ("files",),
    ("parameters",),
    ("data",),
    ("error_sums",),
    ("metrics",),
    ("ops",),
    ("nn",),
    ("decoding",),
    ("training",),
    ("persistence",),
    ("base",),
    ("torch_base",),
    ("model_selection",),
    ("inspection",),
    ("export",),
    ("generation",),
    ("forecasting", "sequencing"),
    ("plotting",),
    ("testing",),
    ("pipeline",),
    ("jobs",),
    ("sciseq",),
    ("peptide_demo",),
    ("cli", "demo"),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Upward imports that are allowed, (module, room): reason. Look-ups by a name from the
# registry are dynamic: they are not import statements, and are not seen here.
ALLOWED_UPWARD: dict[tuple[str, str], str] = {}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "sciseq"


def rooms_imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and room of each import of sciseq, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "sciseq":
                    yield node.lineno, room_of(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "a relative import"
        elif isinstance(node, ast.ImportFrom) and node.module == "sciseq":
            for alias in node.names:
                # The version is a constant that needs nothing else of the package.
                if alias.name != "__version__":
                    yield (
                        node.lineno,
                        alias.name if alias.name in LEVEL_OF else "sciseq",
                    )
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("sciseq."):
            yield node.lineno, room_of(node.module)


def upward_imports(module: str, source: str) -> list[tuple[int, str]]:
    own = room_of(module)
    # A room without a level, old or misspelt, is above everything.
    level = LEVEL_OF.get(own, len(LEVELS))
    return [
        (line, room)
        for line, room in rooms_imported(ast.parse(source))
        if room != own and LEVEL_OF.get(room, len(LEVELS)) >= level
    ]


def package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_place_in_the_levels() -> None:
    homeless = {room_of(module_name(path)) for path in package_files()} - set(LEVEL_OF)
    assert not homeless


@pytest.mark.parametrize("path", package_files(), ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    module = module_name(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {room}"
        for line, room in upward_imports(module, path.read_text(encoding="utf-8"))
        if (module, room) not in ALLOWED_UPWARD
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("sciseq.data.panel", "from sciseq.errors import InputError", []),
        ("sciseq.data.panel", "from sciseq.data.windows import cut", []),
        ("sciseq.data.panel", "from sciseq import __version__, errors", []),
        ("sciseq.cli", "import sciseq", []),
        ("sciseq.data.panel", "import sciseq.nn.mamba", [(1, "nn")]),
        ("sciseq.data.panel", "from sciseq import nn", [(1, "nn")]),
        ("sciseq.data.panel", "from sciseq import load", [(1, "sciseq")]),
        ("sciseq.nn", "def f():\n    from sciseq.base import B", [(2, "base")]),
        ("sciseq.forecasting.a", "import sciseq.sequencing", [(1, "sequencing")]),
        ("sciseq.nn.mamba", "from ..cli import main", [(1, "a relative import")]),
        ("sciseq.nn.mamba", "from sciseq.attic import x", [(1, "attic")]),
    ],
)
def test_a_wrong_import_is_seen(
    module: str, source: str, expected: list[tuple[int, str]]
) -> None:
    assert upward_imports(module, source) == expected


def test_allowed_upward_imports_exist() -> None:
    found = {
        (module_name(path), room)
        for path in package_files()
        for _, room in upward_imports(module_name(path), path.read_text("utf-8"))
    }
    assert set(ALLOWED_UPWARD) <= found, "remove what nothing needs any more"


# --- Cost of importing ---------------------------------------------------------------

HEAVY = {"matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "xarray"}


def loaded_after(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    return set(run_python("-c", code).split())


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    assert not loaded_after("import sciseq") & HEAVY
    assert "numpy" in loaded_after("import sciseq, numpy")


def test_import_takes_under_a_third_of_a_second() -> None:
    code = (
        "import time; start = time.perf_counter(); import sciseq; "
        "print(time.perf_counter() - start)"
    )
    # The best of three, because the machine may be busy with something else.
    assert min(float(run_python("-c", code)) for _ in range(3)) < 0.3


def test_classical_parts_do_without_torch() -> None:
    modules = [
        "sciseq.base",
        "sciseq.data",
        "sciseq.forecasting.arnet",
        "sciseq.forecasting.naive",
        "sciseq.generation.baselines",
        "sciseq.inspection",
        "sciseq.metrics",
        "sciseq.model_selection",
        "sciseq.pipeline",
    ]
    assert "torch" not in loaded_after(f"import {', '.join(modules)}")


# --- Public names and registry -------------------------------------------------------


def test_public_names() -> None:
    assert sciseq.__all__ == [
        "ARNetForecaster",
        "AutoregressiveSequence",
        "AxialAutoregressor",
        "BlockDiffusionSequence",
        "ClozeRecommender",
        "CombinerSequence",
        "ConditionalDiffusionSequence",
        "DelayedCacheDiffusion",
        "DocumentSummarizer",
        "DraftVerifySequence",
        "EfficientBlockDiffusion",
        "EnergyDiffusionSequence",
        "ForecastEnsemble",
        "ForecastPipeline",
        "GateformerForecaster",
        "GenerativeForecaster",
        "ITransformerForecaster",
        "LinearForecaster",
        "MambaMixerForecaster",
        "MarkovChain",
        "MaskEnhancedAutoregressor",
        "MaskedDiffusionSequence",
        "NaiveForecaster",
        "NextBlockSequence",
        "PatchTSTForecaster",
        "PeptideSequencer",
        "PopularityRecommender",
        "PrefixStateSpace",
        "ReorderedCausalDiffusion",
        "SMambaForecaster",
        "SequentialPromptSampler",
        "StatsmodelsForecaster",
        "TransitionRecommender",
        "WindowForecaster",
        "__version__",
        "list_datasets",
        "load",
        "load_dataset",
    ]
    assert sciseq.__all__ == sorted(sciseq.__all__)
    assert set(sciseq.__all__) <= set(dir(sciseq))


def test_type_checkers_know_the_public_names() -> None:
    made = (PACKAGE / "__init__.pyi").read_text(encoding="utf-8")
    assert made == stub(), "run `make names`"


@pytest.mark.parametrize("name", sciseq.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(sciseq, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'SMambaForcaster'"):
        _ = sciseq.SMambaForcaster


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_registry_targets_resolve(method) -> None:
    target = getattr(importlib.import_module(method.module_name), method.class_name)
    assert getattr(sciseq, method.class_name) is target
    assert method.class_name in sciseq.__all__
    assert target.__doc__
    assert method.data in {"forecasting", "sequencing", "generation"}
    assert method.status in {"stable", "experimental"}


def test_registry_names_are_unique_and_found() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert len({method.class_name for method in METHODS}) == len(METHODS)
    for method in METHODS:
        assert method_by_name(method.name) is method
        assert method_by_class_name(method.class_name) is method
    assert method_by_name("no such method") is None
    assert method_by_class_name("NoSuchClass") is None


# --- The guard of conftest.py --------------------------------------------------------


def test_guard_accepts_generators_of_our_own(no_global_side_effects) -> None:
    with no_global_side_effects():
        np.random.default_rng(0).normal()
        random.Random(0).random()


@pytest.mark.parametrize(
    ("touch", "named"),
    [
        (lambda patch: np.random.normal(), "numpy.random"),
        (lambda patch: random.random(), "random"),
        (lambda patch: patch.setenv("SCISEQ_NEW", "1"), "environment"),
        (lambda patch: patch.chdir(ROOT.parent), "working directory"),
    ],
)
def test_guard_sees_global_side_effects(
    no_global_side_effects, monkeypatch, touch, named
) -> None:
    changed = f"global state changed: {re.escape(named)}$"
    with pytest.raises(pytest.fail.Exception, match=changed), no_global_side_effects():
        touch(monkeypatch)


# --- What is built -------------------------------------------------------------------


def test_typed_marker_is_there() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a source distribution, and the wheel built from that."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("sciseq", "datasets"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    target = tmp_path_factory.mktemp("dist")
    run_python(
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        os.fspath(target),
        os.fspath(source),
    )
    return target


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("sciseq-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = (name for name in names if name.endswith("/METADATA"))
        metadata = archive.read(metadata_name).decode()
    info = metadata_name.partition("/")[0]

    modules = {path.relative_to(ROOT).as_posix() for path in package_files()}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {
        "sciseq/py.typed",
        "sciseq/_datasets/README.md",
        "sciseq/_datasets/registry.toml",
        f"{info}/licenses/LICENSE",
        f"{info}/entry_points.txt",
    } <= names
    assert {name.partition("/")[0] for name in names} == {"sciseq", info}
    assert f"\nVersion: {sciseq.__version__}\n" in metadata
    assert "\nLicense-Expression: BSD-3-Clause\n" in metadata


@pytest.mark.slow
def test_wheel_imports_from_where_it_is_unpacked(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("sciseq-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {os.fspath(tmp_path)!r}); import sciseq; "
        "print(sciseq.__file__, len(sciseq.list_datasets()) > 0)"
    )
    file, has_datasets = run_python("-c", code).split()
    assert Path(file).is_relative_to(tmp_path)
    assert has_datasets == "True"


@pytest.mark.slow
def test_source_distribution_holds_what_the_build_reads(dist: Path) -> None:
    (archive,) = dist.glob("sciseq-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "datasets/README.md",
        "datasets/registry.toml",
        "pyproject.toml",
        "sciseq/py.typed",
        "setup.py",
    } <= names


def test_hints_name_extras_that_there_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*PACKAGE.rglob("*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    named = {
        (extra, one.name)
        for one in texts
        for found in re.findall(r"sciseq\[([a-z,]+)\]", one.read_text("utf-8"))
        for extra in found.split(",")
    }
    known = set(project["optional-dependencies"])
    assert {one for one, _ in named} >= {"zarr", "tuning"}  # they are found at all
    assert [one for one in sorted(named) if one[0] not in known] == []
