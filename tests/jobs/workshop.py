"""A job over a small panel, as a user would set it up."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sciseq.jobs import read_job

BASE: dict[str, Any] = {
    "name": "load",
    "source.path": "load.csv",
    "source.series_column": "unique_id",
    "source.time_column": "ds",
    "model.method": "linear",
    "model.settings": "{lookback = 48, horizon = 24}",
    "destination.path": "out-{as_of}.parquet",
    "work.series_per_part": 3,
    # Pictures take most of the time of so small a job.
    "log.report": False,
}


def panel(n_series: int = 7, n_rows: int = 240) -> pd.DataFrame:
    """Hourly series in long format."""
    random = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    hours = np.arange(n_rows) * 2 * np.pi / 24
    tables = [
        pd.DataFrame(
            {
                "unique_id": f"s{one}",
                "ds": times,
                "y": 10 + np.sin(hours + one) + 0.1 * random.normal(size=n_rows),
            }
        )
        for one in range(n_series)
    ]
    return pd.concat(tables, ignore_index=True)


def toml(settings: dict[str, Any]) -> str:
    """Settings as dotted keys of TOML; None leaves a key out."""
    lines = []
    for key, value in settings.items():
        if value is None:
            continue
        is_table = isinstance(value, str) and value.startswith("{lo")
        text = value if is_table else repr(value).replace("'", '"')
        text = text.lower() if isinstance(value, bool) else text
        if isinstance(value, bool):
            text = str(value).lower()
        lines.append(f"{key} = {text}")
    return "\n".join(lines)


class Workshop:
    """A folder with a table and a job file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(panel())

    def write(self, table: pd.DataFrame, name: str = "load.csv") -> None:
        table.to_csv(self.folder / name, index=False)

    def job_file(self, **changes: Any) -> Path:
        changes = {key.replace("__", "."): one for key, one in changes.items()}
        path = self.folder / "job.toml"
        path.write_text(toml(BASE | changes))
        return path

    def job(self, **changes: Any) -> Any:
        return read_job(self.job_file(**changes))

    def files(self) -> dict[str, bytes]:
        """All that was written but the log and the lock, which know the clock."""
        return {
            str(one.relative_to(self.folder)): one.read_bytes()
            for one in sorted(self.folder.rglob("*"))
            if one.is_file() and one.name not in ("log.txt", "log.jsonl", "lock")
        }
