"""Containers in and out, panels, windows, calendar, scaling: NumPy and pandas only."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciseq.data.datasets import describe_dataset, list_datasets, load_dataset
    from sciseq.data.event_sequences import leave_one_out
    from sciseq.data.event_tables import read_events
    from sciseq.data.long_format import from_long, to_long
    from sciseq.data.protocol import long_horizon_split
    from sciseq.data.sequence_files import read_sequences
    from sciseq.data.table_files import read_table, write_table

_LAZY = {
    "describe_dataset": "sciseq.data.datasets",
    "from_long": "sciseq.data.long_format",
    "leave_one_out": "sciseq.data.event_sequences",
    "list_datasets": "sciseq.data.datasets",
    "load_dataset": "sciseq.data.datasets",
    "long_horizon_split": "sciseq.data.protocol",
    "read_events": "sciseq.data.event_tables",
    "read_sequences": "sciseq.data.sequence_files",
    "read_table": "sciseq.data.table_files",
    "to_long": "sciseq.data.long_format",
    "write_table": "sciseq.data.table_files",
}

__all__ = [
    "describe_dataset",
    "from_long",
    "leave_one_out",
    "list_datasets",
    "load_dataset",
    "long_horizon_split",
    "read_events",
    "read_sequences",
    "read_table",
    "to_long",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sciseq.data' has no attribute {name!r}")
