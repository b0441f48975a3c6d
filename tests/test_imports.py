"""What commands and public names load: modules, which do not depend on the machine."""

import subprocess
import sys

# The packages that cost a noticeable part of a second.
HEAVY = {"matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "torch",
         "xarray"}  # fmt: skip


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Modules that a fresh interpreter has loaded when ``code`` has run."""
    lines = [
        "import atexit, sys",
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))",
        code,
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def packages(modules: set[str]) -> set[str]:
    return {one.partition(".")[0] for one in modules}


def test_help_and_the_list_of_methods_load_nothing_heavy():
    run = "from sciseq.cli import main; main()"
    for arguments in (["--help"], ["forecast", "--help"], ["--version"], ["methods"]):
        loaded = loaded_after(run, *arguments)
        assert "sciseq.cli.app" in loaded
        assert not packages(loaded) & HEAVY


def test_a_network_estimator_loads_little_beyond_torch_and_scikit_learn():
    least = loaded_after("import torch, sklearn.base")
    loaded = loaded_after("from sciseq import SMambaForecaster")
    assert packages(loaded - least) <= {"safetensors", "sciseq"}
    # Of sciseq only what the method needs.
    rooms = {one.split(".")[1] for one in loaded if one.startswith("sciseq.")}
    assert not rooms & {"cli", "export", "inspection", "persistence", "pipeline",
                        "plotting", "testing"}  # fmt: skip


def test_a_heavy_package_would_be_seen():
    assert "matplotlib" in packages(loaded_after("import matplotlib")) & HEAVY
