r"""Forecast real series with a generator of token sequences, through quantisation.

Axis legend: n windows, L lookback, H horizon, T targets, S sample paths, B bins,
m rows (a column of a window, or a path).
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import InputError
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.forecasting.future import FutureRows
from sciseq.generation.base import SequenceGenerator, make_drawing, request_seeds
from sciseq.generation.calls import TOGETHER
from sciseq.generation.constraints import legal_in_gaps
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.parameters import AnyOf, Instance, Integer, Nothing, Option
from sciseq.parameters import Rule as ParameterRule
from sciseq.training import resolve_seed

__all__ = ["GenerativeForecaster"]

IntArray = npt.NDArray[np.int64]


class GenerativeForecaster(BaseForecaster):
    r"""Forecast by continuing the tokens of the look-back, many times.

    .. math:: z = (x - \mu) / \sigma, \qquad b_t = \#\{k : e_k \le z_t\}

    :math:`\mu` and :math:`\sigma` are those of the look-back of each column and window,
    the edges :math:`e_k` quantiles of all training windows. One model of the tokens b
    serves all series and columns; each column is forecast from itself alone.

    Parameters
    ----------
    generator : sequence generator, optional
        For example ``AutoregressiveSequence()``, the default. It is cloned.
    n_bins : int, default=32
        Bins B of equal shares of the training values; equal values share a bin, so
        that there may be fewer.
    n_samples : int, default=100
        Paths S that a forecast is the mean, median or quantile of.
    point : {"mean", "median"}, default="mean"
        What :meth:`predict` returns of the paths.
    lookback : int, default=48
        Rows that a forecast continues.
    horizon : int, default=12
        Rows to forecast.
    max_windows : int, optional
        Train on at most this many windows, evenly spread.
    targets : label or list of labels, optional
        Columns to forecast; all by default. Others are not read.
    missing : {"error", "interpolate"}, default="error"
        What to do with NaN.
    scaler : {"standard", "series", None}, default="standard"
        Standardise columns inside, before windows are.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, that the generator's best epoch is chosen by.
        With 0 the generator's own ``validation_fraction`` holds, of windows that
        overlap with those it learns from.
    refit_on_all : bool, default=False
        Learn again from all rows.
    nonnegative : bool, default=False
        Raise negative forecasts to zero.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the paths, and of a generator whose own ``random_state`` is None.

    Attributes
    ----------
    generator_ : SequenceGenerator
        The fitted generator.
    edges_ : ndarray of shape (B - 1,)
        Borders between bins, of standardised values.
    levels_ : ndarray of shape (B,)
        What a bin stands for: the mean of its training values.

    Notes
    -----
    Quantiles are those of the paths, without conformal calibration: whether they cover
    depends on the generator. No path leaves the range of the first and last level. The
    noise of a path depends on its number alone, so that a window has the same forecast
    whatever is forecast with it. Beyond the fitted horizon :meth:`predict` rolls on its
    own point forecasts, as all forecasters do, but quantiles roll every path by itself.

    Examples
    --------
    >>> import numpy as np
    >>> from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
    >>> X = np.sin(np.arange(80.0) / 3).reshape(-1, 1)
    >>> generator = AutoregressiveSequence(
    ...     d_model=8, d_ff=8, n_layers=1, n_heads=2, max_epochs=1, device="cpu"
    ... )
    >>> model = GenerativeForecaster(
    ...     generator=generator, n_bins=8, n_samples=5, lookback=8, horizon=2,
    ...     random_state=0,
    ... ).fit(X)
    >>> model.predict().shape
    (2, 1)
    """

    _covariates: ClassVar[frozenset[str]] = frozenset()
    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        "generator": AnyOf(
            Nothing(), Instance("a sequence generator", SequenceGenerator)
        ),
        "n_bins": Integer(2),
        "n_samples": Integer(1),
        "point": Option("mean", "median"),
        "max_windows": AnyOf(Nothing(), Integer(1)),
        "missing": Option("error", "interpolate"),
        "random_state": AnyOf(
            Nothing(),
            Integer(0),
            Instance(
                "a NumPy random source", np.random.RandomState, np.random.Generator
            ),
        ),
        **{
            name: FORECASTER_RULES[name]
            for name in (
                "lookback",
                "horizon",
                "targets",
                "scaler",
                "validation_fraction",
                "refit_on_all",
                "nonnegative",
            )
        },
    }

    def __init__(
        self,
        *,
        generator: Any = None,
        n_bins: int = 32,
        n_samples: int = 100,
        point: str = "mean",
        lookback: int = 48,
        horizon: int = 12,
        max_windows: int | None = None,
        targets: Any = None,
        missing: str = "error",
        scaler: str | None = "standard",
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
        nonnegative: bool = False,
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.n_bins = n_bins
        self.n_samples = n_samples
        self.point = point
        self.lookback = lookback
        self.horizon = horizon
        self.max_windows = max_windows
        self.targets = targets
        self.missing = missing
        self.scaler = scaler
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all
        self.nonnegative = nonnegative
        self.random_state = random_state

    # -------------------------------------------------------------------- fit

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        self.seed_ = resolve_seed(self.random_state)
        generator = self.generator
        generator = AutoregressiveSequence() if generator is None else clone(generator)
        if generator.random_state is None:
            generator.set_params(random_state=self.seed_)
        z = self._standardised(training)
        self.edges_, self.levels_ = _bins(z, int(self.n_bins))
        held_out = None
        if validation is not None and len(validation):
            held_out = self._tokens(self._standardised(validation))
        self.generator_ = generator.fit(self._tokens(z), validation_data=held_out)

    def _calibrate(self, held_out: WindowSet | None) -> None:
        """Quantiles are those of the paths: no residuals are needed."""
        self.calibration_residuals_ = None

    def _standardised(self, windows: WindowSet) -> FloatArray:
        """Columns of whole windows (n T, L + H), by the statistics of the look-back."""
        if self.max_windows is not None:
            windows = windows.evenly(int(self.max_windows))
        every = slice(None)
        both = [windows.inputs(every).values, windows.targets(every)]
        rows = _columns(np.concatenate(both, axis=1)[..., self.target_positions_])
        mean, scale = _statistics(rows[:, : self._context_length])
        return (rows - mean) / scale

    def _tokens(self, z: FloatArray) -> IntArray:
        return np.digitize(z, self.edges_).astype(np.int64)

    # -------------------------------------------------------------- forecasts

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        paths = self._paths(inputs, int(self.horizon))
        middle = np.mean if self.point == "mean" else np.median
        return np.asarray(middle(paths, axis=0))

    def _paths(self, inputs: WindowInputs, n_rows: int) -> FloatArray:
        """Sample paths (S, n, n_rows, T), scaled."""
        values = inputs.values[..., self.target_positions_]
        n, length, n_targets = values.shape
        n_samples = int(self.n_samples)
        history = np.tile(_columns(values), (n_samples, 1))  # (S n T, L)
        numbers = torch.arange(n_samples).repeat_interleave(n * n_targets)
        made: list[FloatArray] = []
        for done in range(0, n_rows, int(self.horizon)):
            seeds = request_seeds(self.seed_ + done, numbers)
            made.append(self._continued(history, seeds))
            history = np.concatenate([history, made[-1]], axis=1)[:, -length:]
        rows = np.concatenate(made, axis=1)[:, :n_rows]
        return rows.reshape(n_samples, n, n_targets, n_rows).swapaxes(2, 3)

    def _continued(self, history: FloatArray, seeds: torch.Tensor) -> FloatArray:
        """Continue rows (m, L) by one draw each, (m, H)."""
        mean, scale = _statistics(history)
        tokens = torch.from_numpy(self._tokens((history - mean) / scale))
        gaps = torch.full((len(tokens), int(self.horizon)), -1)
        rows, drawing = torch.cat([tokens, gaps], dim=1), make_drawing(1.0, None, 1.0)
        # Not by ``sample``: its noise depends on the place of a row among all.
        # Draws of one look-back go together: it may then be read once for all of them.
        order = torch.arange(len(rows)).view(int(self.n_samples), -1).T.flatten()
        legal = legal_in_gaps(self.generator_.alphabet_, rows, None)
        for some in torch.split(order, TOGETHER):
            rows[some] = self.generator_._generate_some(
                rows[some], None, legal, drawing, seeds[some]
            )[0].cpu()
        drawn = rows[:, history.shape[1] :].numpy()
        return np.asarray(self.levels_[drawn] * scale + mean)

    def predict_quantiles(
        self,
        X: Any = None,
        *,
        quantiles: npt.ArrayLike = (0.1, 0.5, 0.9),
        horizon: int | None = None,
    ) -> dict[float, Any]:
        """Forecast quantiles: those of the sample paths.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            As in :meth:`predict`.
        quantiles : array-like of float, default=(0.1, 0.5, 0.9)
            Levels between 0 and 1.
        horizon : int, optional
            Rows to forecast; beyond the fitted horizon each path goes on by itself.

        Returns
        -------
        dict
            For each level the forecast, as :meth:`predict` would return it.
        """
        levels = np.sort(np.atleast_1d(np.asarray(quantiles)))
        is_number = levels.dtype.kind in "fiu"
        if not is_number or not levels.size or not ((levels > 0) & (levels < 1)).all():
            raise InputError(
                f"quantiles={quantiles!r} are not allowed: must lie between 0 and 1",
                where="quantiles",
                hint="Give levels such as [0.1, 0.5, 0.9].",
            )
        panel = self._prediction_panel(X)
        n_rows = self._check_horizon(horizon)
        future = FutureRows.after(panel, self._step_of(panel), n_rows)
        paths = self._paths(self._first_inputs(panel, future, n_rows), n_rows)
        found = np.quantile(paths, levels, axis=0)
        return {
            float(level): self._write(
                panel, list(self._in_data_units(panel, one)), future
            )
            for level, one in zip(levels, found, strict=True)
        }


def _columns(values: FloatArray) -> FloatArray:
    """Make rows (n T, L) of windows (n, L, T)."""
    return values.swapaxes(1, 2).reshape(-1, values.shape[1])


def _statistics(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (m, 1); 1 where nothing varies."""
    mean = rows.mean(axis=1, keepdims=True)
    scale = rows.std(axis=1, keepdims=True)
    # Rounding lets a constant vary a little.
    is_constant = scale <= 1e-9 * np.maximum(np.abs(mean), 1e-3)
    return mean, np.where(is_constant, 1.0, scale)


def _bins(z: FloatArray, n_bins: int) -> tuple[FloatArray, FloatArray]:
    """Edges between bins of equal shares, and the mean of each; no bin is empty."""
    shares = np.arange(1, n_bins) / n_bins
    # Edges that are values themselves: each begins a bin that holds it.
    edges = np.unique(np.quantile(z, shares, method="inverted_cdf"))
    edges = edges[edges > z.min()]
    bins = np.digitize(z, edges).ravel()
    return edges, np.bincount(bins, weights=z.ravel()) / np.bincount(bins)
