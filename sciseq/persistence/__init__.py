"""Saving and loading estimators without pickle: JSON, safetensors and hashes.

A saved model is a folder (or one ZIP file) with a readable manifest and at most two
safetensors members. Loading executes nothing that the file names: classes come from
the static registry, values from a fixed list of kinds, and every byte is checked
against the manifest before it is used.
"""

from sciseq.persistence.estimators import load, read_manifest, save
from sciseq.persistence.tensors import check_weights

__all__ = ["check_weights", "load", "read_manifest", "save"]
