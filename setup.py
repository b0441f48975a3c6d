"""What pyproject.toml cannot say: the compiled scan, and the data set registry.

The selective scan is compiled where a C compiler is at hand; without one the
installation goes on and the scan runs in plain torch. It is a plain library that
``ctypes`` loads, built as an extension so that it lands in the right place under the
right name; it needs no header of Python.

In the repository the folder ``datasets/`` stands beside the package, where people look
for it; an installed sciseq finds the same files in ``sciseq/_datasets/``.
"""

from pathlib import Path

from setuptools import Extension, find_packages, setup

KERNEL = Path("sciseq/ops/selective_scan/kernel")

setup(
    packages=[*find_packages(include=["sciseq", "sciseq.*"]), "sciseq._datasets"],
    package_dir={"sciseq._datasets": "datasets"},
    package_data={
        "sciseq": ["py.typed", "__init__.pyi"],
        "sciseq._datasets": ["README.md", "registry.toml"],
        "sciseq.sequencing": ["unimod.csv", "pretrained/*"],
    },
    ext_modules=[
        Extension(
            "sciseq.ops.selective_scan._scan",
            sources=[str(KERNEL / "scan.c")],
            depends=[str(header) for header in sorted(KERNEL.glob("*.h"))],
            extra_compile_args=[
                "-std=gnu11",
                "-O2",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wno-psabi",
            ],
            optional=True,
        )
    ],
)
