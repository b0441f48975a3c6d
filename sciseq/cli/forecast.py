"""The command ``sciseq forecast``: read, fit, forecast, compare, write."""

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sciseq.cli.boundary import say
from sciseq.cli.outputs import check_outputs, write_outputs
from sciseq.cli.settings import parse_settings
from sciseq.errors import InputError, nearest_name
from sciseq.registry import METHODS, Method

__all__ = ["ForecastRequest", "default_lookback", "run_forecast"]

# Parameters with an option of their own, which --set must not contradict.
_OPTIONS = {
    "device": "--device",
    "horizon": "--horizon",
    "lookback": "--lookback",
    "missing": "--missing",
    "random_state": "--seed",
    "targets": "--targets",
    "verbose": "--verbose",
}


@dataclass(frozen=True)
class ForecastRequest:
    """What the user asked for; see the help of the command."""

    data: Path
    model: str
    horizon: int
    lookback: int | None = None
    out: Path | None = None
    plot: Path | None = None
    save_model: Path | None = None
    time_column: str | None = None
    series_column: str | None = None
    targets: str | None = None
    drop: str | None = None
    interval: float | None = None
    settings: list[str] = field(default_factory=list)
    missing: str = "error"
    device: str = "auto"
    seed: int = 0
    quiet: bool = False
    verbose: bool = False


def run_forecast(request: ForecastRequest) -> None:
    """Fit a model on a table and write its forecast.

    Parameters
    ----------
    request : ForecastRequest
        Input, model, outputs.

    Raises
    ------
    SciSeqError
        Before any work where possible; nothing was written.
    """
    method = _method(request.model)
    settings = parse_settings(request.settings, _OPTIONS)
    _check_request(request)
    outputs = {
        "out": request.out,
        "plot": request.plot,
        "save_model": request.save_model,
    }
    check_outputs(request.data, **outputs)
    from sciseq.data.table_files import read_table

    frame = read_table(
        request.data,
        time_column=request.time_column,
        series_column=request.series_column,
        drop=_names(request.drop, ()),
    )
    rows = _look_at(frame)
    model = _make_model(method, settings, request, frame.columns, rows)
    if not request.quiet:
        _describe_input(frame, model, rows, request)
    forecast, interval = _fit_and_predict(model, frame, request)
    table = _with_interval(forecast, interval)
    comparison = None
    if not request.quiet:
        from sciseq.cli.comparison import compare

        comparison = compare(model, method.name, frame, rows.lengths, rows.season)
    picture = None
    if request.plot is not None:
        from sciseq.plotting import plot_forecast

        title = f"{request.data.name}: {method.name}"
        picture = plot_forecast(frame, forecast, interval=interval, title=title)
    write_outputs(table, picture, model, **outputs)
    if request.out is None:
        from sciseq.data.delimited_files import write_delimited

        write_delimited(table, sys.stdout)
    if not request.quiet:
        _report(comparison, table, request)


def default_lookback(
    preferred: int, n_rows: int, horizon: int, season: int | None, fraction: float
) -> int:
    """Choose how many rows to look back on, so that enough are left to learn from.

    The method's own default, or a third of the training rows less the horizon where
    that is fewer, cut to whole seasons when it holds one.

    Parameters
    ----------
    preferred : int
        The method's default.
    n_rows : int
        Rows of the shortest series.
    horizon : int
        Rows to forecast.
    season : int or None
        Rows of a season.
    fraction : float
        Share of the rows that is held out for validation.

    Examples
    --------
    >>> default_lookback(96, 5000, horizon=24, season=24, fraction=0.1)
    96
    >>> default_lookback(96, 144, horizon=12, season=12, fraction=0.1)
    36
    """
    n_training = n_rows - max(round(n_rows * fraction), horizon)
    length = min(preferred, (n_training - horizon) // 3)
    if season is not None and length > season:
        length -= length % season
    return max(1, length)


# ------------------------------------------------------------------------ the request


def _method(name: str) -> Method:
    known = [method for method in METHODS if method.data == "forecasting"]
    found = next((method for method in known if method.name == name), None)
    if found is not None:
        return found
    names = [method.name for method in known]
    raise InputError(
        f"no forecasting method is called {name!r}, there are {', '.join(names)}",
        where="--model",
        hint=nearest_name(name, names) or "`sciseq methods` lists them.",
    )


def _check_request(request: ForecastRequest) -> None:
    if request.interval is not None and not 0 < request.interval < 1:
        raise InputError(
            f"a coverage of {request.interval} is not allowed: must lie between 0 "
            "and 1",
            where="--interval",
            hint="0.9 means that nine in ten truths should lie inside.",
        )
    if request.quiet and request.verbose:
        raise InputError("--quiet and --verbose contradict each other", where="options")


def _names(text: str | None, columns: Any) -> list[str]:
    """Column names from text: one name that there is, or names between commas."""
    if text is None:
        return []
    if text in columns:
        return [text]
    return [name.strip() for name in text.split(",") if name.strip()]


# -------------------------------------------------------------------------- the model


class Rows(NamedTuple):
    """Rows of each series, and how many of them make a season."""

    lengths: Any
    season: int | None


def _look_at(frame: Any) -> Rows:
    from sciseq.data.calendar import season_for_step
    from sciseq.data.containers import read_panel
    from sciseq.forecasting.training_table import common_step

    panel = read_panel(frame)
    return Rows(panel.lengths, season_for_step(common_step(panel)))


def _make_model(
    method: Method,
    settings: dict[str, Any],
    request: ForecastRequest,
    columns: Any,
    rows: Rows,
) -> Any:
    model = getattr(importlib.import_module(method.module_name), method.class_name)()
    known = model.get_params()
    for name in settings:
        if name not in known:
            raise InputError(
                f"{method.name} has no parameter {name!r}, it has {', '.join(known)}",
                where="--set",
                hint=nearest_name(name, known) or None,
            )
    model.set_params(**settings)
    if request.device != "auto" and "device" not in known:
        raise InputError(
            f"{method.name} has no choice of device, {request.device!r} was given",
            where="--device",
            hint="Leave the option out.",
        )
    is_watched = request.verbose or (not request.quiet and sys.stderr.isatty())
    wanted = {
        "horizon": request.horizon,
        "lookback": request.lookback,
        "missing": request.missing,
        "targets": _names(request.targets, columns) or None,
        "device": request.device,
        "random_state": request.seed,
        "verbose": int(is_watched),
    }
    # Members of an ensemble have look-backs, devices and seeds of their own.
    places = {name: name.rpartition("__")[2] for name in known}
    chosen = {name: wanted[end] for name, end in places.items() if end in wanted}
    if request.lookback is None:
        for name in [one for one in chosen if places[one] == "lookback"]:
            chosen[name] = known[name] and default_lookback(
                known[name],
                int(rows.lengths.min()),
                request.horizon,
                rows.season,
                model.validation_fraction,
            )
    return model.set_params(**chosen)


def _fit_and_predict(
    model: Any, frame: Any, request: ForecastRequest
) -> tuple[Any, Any]:
    model.fit(frame)
    if getattr(model, "stopped_", "") == "interrupted":
        # A script keeps the best weights so far; a command that was stopped must not
        # look as if it had finished.
        raise KeyboardInterrupt
    forecast = model.predict()
    forecast.attrs = dict(frame.attrs)
    if request.interval is None:
        return forecast, None
    return forecast, model.predict_interval(coverage=request.interval)


# ------------------------------------------------------------------------- the report


def _describe_input(
    frame: Any, model: Any, rows: Rows, request: ForecastRequest
) -> None:
    shape = f"{len(frame)} rows, {frame.shape[1]} columns"
    if len(rows.lengths) > 1:
        shape += f", {len(rows.lengths)} series"
    lookback = getattr(model, "lookback", None)
    look = "" if lookback is None else f", lookback {lookback}"
    say(f"{request.data.name}: {shape}{look}, horizon {model.horizon}")
    if type(frame.index).__name__ == "RangeIndex":
        say(f"{request.data.name}: no time column was found, rows are numbered")


def _report(comparison: Any, table: Any, request: ForecastRequest) -> None:
    if comparison is None:
        say("no rows were held out, so the error of this forecast is not known")
    else:
        say(comparison.describe())
    if request.out is not None:
        say(f"forecast ({len(table)} rows): {request.out}")
    if request.plot is not None:
        say(f"picture: {request.plot}")
    if request.save_model is not None:
        say(f"model: {request.save_model}")


def _with_interval(forecast: Any, interval: Any) -> Any:
    """Put the ends of the interval beside each column of the forecast."""
    if interval is None:
        return forecast
    import pandas as pd

    columns = {}
    units = dict(forecast.attrs.get("units", {}))
    for name in forecast.columns:
        parts = {
            name: forecast[name],
            f"{name}_lower": interval[0][name],
            f"{name}_upper": interval[1][name],
        }
        taken = [part for part in parts if part in columns]
        if taken:
            raise InputError(
                f"column {taken[0]!r} is in the way of an end of the interval",
                where="--interval",
                hint="Rename the column.",
            )
        columns.update(parts)
        if name in units:
            units.update(dict.fromkeys(parts, units[name]))
    table = pd.DataFrame(columns)
    table.attrs = {**forecast.attrs, **({"units": units} if units else {})}
    return table
