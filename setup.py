"""What pyproject.toml cannot say: the wheel carries the data set registry.

In the repository the folder ``datasets/`` stands beside the package, where people look
for it; an installed sciseq finds the same files in ``sciseq/_datasets/``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sciseq", "sciseq.*"]), "sciseq._datasets"],
    package_dir={"sciseq._datasets": "datasets"},
    package_data={
        "sciseq": ["py.typed", "__init__.pyi"],
        "sciseq._datasets": ["README.md", "registry.toml"],
    },
)
