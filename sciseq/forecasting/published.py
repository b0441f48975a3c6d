"""Settings that authors published for benchmark data sets, by name and horizon."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sciseq.errors import InputError, nearest_name

__all__ = ["HOURLY", "LONG", "SHORT", "PublishedSettings"]

HOURLY = ("hour", "dayofweek", "day", "dayofyear")
"""Calendar marks that the long-horizon scripts use, whatever the step of the data."""
LONG = (96, 192, 336, 720)
"""Horizons of the long-horizon benchmark."""
SHORT = (12, 24, 48, 96)
"""Horizons of S-Mamba and iTransformer on the traffic sets of PEMS."""


@dataclass(frozen=True)
class PublishedSettings:
    """A table of settings, one row per data set.

    Parameters
    ----------
    fields : tuple of str
        Parameters that the table gives.
    rows : mapping of str to tuple
        For each data set its horizons, then one entry per field. A tuple of as many
        values as there are horizons holds one for each, unless the field is
        ``calendar``.

    Examples
    --------
    >>> table = PublishedSettings(("d_model",), {"small": ((6, 12), (8, 16))})
    >>> table.look_up("small", 12, "Model")
    {'d_model': 16}
    """

    fields: tuple[str, ...]
    rows: Mapping[str, tuple[Any, ...]]

    def look_up(self, dataset: Any, horizon: int, owner: str) -> dict[str, Any]:
        """Return the settings of one data set and horizon.

        Parameters
        ----------
        dataset : str
            Name of the data set.
        horizon : int
            One of the published horizons.
        owner : str
            Class name, for messages.

        Raises
        ------
        InputError
            For a data set or a horizon that was not published.
        """
        if not isinstance(dataset, str) or dataset not in self.rows:
            raise InputError(
                f"no settings were published for {dataset!r}, only for "
                f"{list(self.rows)}",
                where="dataset",
                hint=nearest_name(dataset, self.rows)
                or f"For other data set the parameters of {owner}(...).",
            )
        horizons, *values = self.rows[dataset]
        if horizon not in horizons:
            raise InputError(
                f"horizon {horizon} was not published for {dataset}, only {horizons}",
                where="horizon",
                hint=f"Take the nearest and change it: .set_params(horizon={horizon}).",
            )
        column = horizons.index(horizon)
        return {
            name: value[column]
            if isinstance(value, tuple) and name != "calendar"
            else value
            for name, value in zip(self.fields, values, strict=True)
        }
