"""Checkpoint files: safetensors with a JSON record, hashed, two of them kept.

A file is an ordinary safetensors file whose metadata hold ``record`` (a JSON object)
and ``sha256`` of everything else in it. The hash is verified before any tensor is
built, so that a truncated or altered file is told apart from a good one and never half
loaded.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from sciseq.errors import CheckpointError, SciSeqWarning
from sciseq.files import write_atomic

__all__ = ["Checkpoint", "CheckpointStore"]

FORMAT_VERSION = 1

_KEPT = 2
_NAME = re.compile(r"epoch-(\d+)\.safetensors")
_LEFTOVER = re.compile(r"\.epoch-\d+\.[0-9a-f]+\.part\.safetensors")


class Checkpoint(NamedTuple):
    """What one checkpoint file holds: a JSON record and named tensors on the CPU."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]


class CheckpointStore:
    """The checkpoints of one training run in one folder.

    Parameters
    ----------
    folder : Path
        Folder of this run alone; made by the first :meth:`save`.
    fingerprint : str
        Hash of the settings and data of the run.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as name:
    ...     store = CheckpointStore(Path(name), fingerprint="a1")
    ...     store.save(1, {"epoch": 1}, {"weight": torch.ones(2)})
    ...     store.load()
    Checkpoint(record={'epoch': 1}, tensors={'weight': tensor([1., 1.])})
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._good: list[Path] = []

    def save(
        self, epoch: int, record: dict[str, Any], tensors: dict[str, Tensor]
    ) -> None:
        """Write the checkpoint of ``epoch`` atomically, and drop all but the last two.

        Raises
        ------
        OSError
            When the folder cannot be written; earlier checkpoints are as they were.
        """
        envelope = {
            "format": FORMAT_VERSION,
            "torch": str(torch.__version__),
            "fingerprint": self.fingerprint,
            "content": record,
        }
        path = self.folder / f"epoch-{epoch:06d}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _encode(envelope, tensors))
        # Only files known to be good count: a damaged one must not push out the last
        # good one.
        self._good = [*(good for good in self._good if good != path), path][-_KEPT:]
        for stale in set(self._files()) - set(self._good):
            stale.unlink(missing_ok=True)

    def load(self) -> Checkpoint | None:
        """Return the newest readable checkpoint, or None when there is none at all.

        Temporary files that a killed run left behind are removed.

        Warns
        -----
        SciSeqWarning
            When newer files are damaged, or another torch wrote the checkpoint.

        Raises
        ------
        CheckpointError
            When all files are damaged, or the newest readable one belongs to a run with
            other settings or data, or to a newer sciseq.
        OSError
            When the folder or a file cannot be read.
        """
        if not self.folder.exists():
            return None
        for leftover in self.folder.iterdir():
            if _LEFTOVER.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)
        damaged: list[str] = []
        for path in reversed(self._files()):
            try:
                envelope, tensors = _decode(path)
            except CheckpointError as error:
                damaged.append(error.message)
                continue
            self._check(path, envelope)
            for message in _doubts(path, envelope, damaged):
                warnings.warn(SciSeqWarning(message), stacklevel=3)
            self._good = [path]
            return Checkpoint(envelope["content"], tensors)
        if damaged:
            raise CheckpointError(
                f"no checkpoint can be read: {'; '.join(damaged)}",
                where=str(self.folder),
                hint="Delete this folder to train from the start.",
            )
        return None

    def _files(self) -> list[Path]:
        found = [
            (int(match[1]), path)
            for path in self.folder.iterdir()
            if (match := _NAME.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]

    def _check(self, path: Path, envelope: dict[str, Any]) -> None:
        if envelope["format"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path.name} has format {envelope['format']}; this sciseq reads up to "
                f"format {FORMAT_VERSION}",
                where=str(self.folder),
                hint="Upgrade sciseq, or give another checkpoint_dir.",
            )
        if envelope["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                "the checkpoints belong to a run with other settings or other data "
                f"(fingerprint {envelope['fingerprint']!r}, this run has "
                f"{self.fingerprint!r})",
                where=str(self.folder),
                hint="Give another checkpoint_dir, or delete this folder to train from "
                "the start.",
            )


def _doubts(path: Path, envelope: dict[str, Any], damaged: list[str]) -> Iterator[str]:
    if damaged:
        yield f"{'; '.join(damaged)}. Training goes on from {path.name}."
    if envelope["torch"] != str(torch.__version__):
        yield (
            f"{path.name} was written with torch {envelope['torch']}, this is "
            f"{torch.__version__}: the resumed run may differ in the last digits from "
            "an uninterrupted one."
        )


def _encode(envelope: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    record = json.dumps(envelope, allow_nan=False)
    header, payload = _split(safetensors.torch.save(tensors, {"record": record}))
    header["__metadata__"]["sha256"] = _digest(header, payload)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants tensors aligned to 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, payload))


def _decode(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    data = path.read_bytes()
    try:
        header, payload = _split(data)
        metadata = header["__metadata__"]
        is_intact = metadata.pop("sha256") == _digest(header, payload)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointError(f"{path.name} is damaged or truncated") from error
    if not is_intact:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 does not match")
    return json.loads(metadata["record"]), safetensors.torch.load(data)


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    view = memoryview(data)
    end = 8 + int.from_bytes(view[:8], "little")
    return json.loads(bytes(view[8:end])), view[end:]


def _digest(header: dict[str, Any], payload: memoryview) -> str:
    # The header names, shapes and places the tensors: flips there count too.
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(payload)
    return digest.hexdigest()
