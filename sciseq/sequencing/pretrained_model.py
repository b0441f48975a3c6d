"""Where the model that comes with the package is."""

from pathlib import Path

__all__ = ["PRETRAINED", "PRETRAINED_NAME"]

PRETRAINED = Path(__file__).parent / "pretrained"
"""Folder of the model, as :func:`sciseq.load` reads it."""

PRETRAINED_NAME = "pretrained"
"""What stands for it on the command line."""
