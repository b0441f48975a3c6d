"""S-Mamba as an estimator; the network is in :mod:`sciseq.forecasting.smamba_network`.

Symbols of the card: L lookback, H horizon, D d_model, F d_ff, E n_layers, n d_state,
k d_conv, e expand.
"""

import os
from typing import Any, ClassVar, Self

from torch import nn

from sciseq.errors import InputError, nearest_name
from sciseq.forecasting.smamba_network import SMambaNetwork
from sciseq.forecasting.torch_forecaster import TORCH_FORECASTER_RULES, TorchForecaster
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["SMambaForecaster"]

HOURLY_MARKS = ("hour", "dayofweek", "day", "dayofyear")

# The published scripts, per data set: horizons, then E, D, n, learning rate and batch
# size (one value, or one per horizon), epochs, instance normalisation, and whether
# calendar marks are read. The scripts never pass the step of the data, so every set
# with dates has the four hourly marks. F = D, k = 2, e = 1, dropout 0.1, L = 96.
_LONG = (96, 192, 336, 720)
_SHORT = (12, 24, 48, 96)
_PUBLISHED: dict[str, tuple[Any, ...]] = {
    "ETTh1": (_LONG, 2, 256, 2, (7e-5, 7e-5, 5e-5, 5e-5), 32, 10, True, True),
    "ETTh2": (_LONG, 2, 256, 2, (4e-5, 4e-5, 3e-5, 7e-5), 32, 10, True, True),
    "ETTm1": (_LONG, 2, (256, 128, 128, 128), 2, 5e-5, 32, 10, True, True),
    "ETTm2": (
        _LONG, 2, (256, 128, 128, 128), 2, (5e-5, 5e-5, 3e-5, 5e-5), 32, 10, True, True,
    ),
    "exchange_rate": (
        _LONG, 2, 128, 32, (1e-4, 1e-4, 5e-5, 5e-5), (16, 32, 32, 32), 10, True, True,
    ),
    "weather": (_LONG, 3, 512, 2, 5e-5, 32, 5, True, True),
    "solar": (_LONG, 2, 512, 32, 1e-4, 32, 10, True, False),
    "electricity": (
        _LONG, 3, 512, (16, 32, 32, 32), (1e-3, 5e-4, 5e-4, 5e-4), 16, 5, True, True,
    ),
    "traffic": (_LONG, 4, 512, 32, (1e-3, 1e-3, 2e-3, 8e-4), 16, 10, True, True),
    "PEMS03": (
        _SHORT, (4, 4, 5, 4), 512, 32, (1e-3, 1e-3, 1e-4, 1.5e-3), 32,
        (5, 10, 10, 10), True, False,
    ),
    "PEMS04": (_SHORT, 4, 1024, 32, 3e-4, 32, 10, False, False),
    "PEMS07": (
        _SHORT, (2, 2, 4, 4), 512, 32, (7e-4, 7e-4, 5e-4, 5e-4), (16, 32, 16, 16), 10,
        False, False,
    ),
    "PEMS08": (
        _SHORT, (2, 2, 4, 4), (512, 512, 256, 256), 32, (1e-3, 7e-4, 1e-3, 1e-3),
        (32, 32, 16, 16), 10, True, False,
    ),
}  # fmt: skip
_FIELDS = (
    "n_layers",
    "d_model",
    "d_state",
    "learning_rate",
    "batch_size",
    "max_epochs",
    "use_norm",
)


class SMambaForecaster(TorchForecaster):
    r"""Forecast many related series with selective scans over the variates.

    Each series of a window becomes one token; two Mamba blocks with their own weights
    scan the tokens, one in each direction, and a feed-forward network works on each
    token alone:

    .. math::

        m = f(x) + \mathrm{flip}(g(\mathrm{flip}(x))), \quad
        x_1 = \mathrm{LN}_1(x + m), \quad
        x_2 = \mathrm{LN}_2(x_1 + \mathrm{FFN}(x_1))

    Parameters
    ----------
    lookback : int, default=96
        Rows of context L.
    horizon : int, default=24
        Rows to forecast H.
    d_model : int, default=128
        Width of a token D.
    d_ff : int, optional
        Width of the feed-forward network F; ``d_model`` by default.
    n_layers : int, default=2
        Encoder layers E.
    d_state : int, default=2
        State size n of the scans; 2 served narrow tables (7 to 21 columns) and 32 wide
        ones in the published settings.
    d_conv : int, default=2
        Width k of the causal convolution over the variates.
    expand : int, default=1
        Expansion e of the Mamba blocks.
    dropout : float, default=0.1
        Dropout of the embedding and of the feed-forward networks.
    use_norm : bool, default=True
        Normalise each window by its own mean and deviation.
    loss : {"mse", "mae", "huber"}, default="mse"
        Loss over all steps and targets, on scaled values.
    targets : label or list of labels, optional
        Columns to forecast; the others are inputs only. All by default.
    calendar : "auto", None or list of str, default="auto"
        Calendar features as extra tokens: those that suit the step of the index, none,
        or some of second, minute, hour, dayofweek, day, dayofyear, week, month.
    missing : {"error", "mask", "interpolate"}, default="error"
        What to do with NaN. ``"mask"`` reads missing inputs as the mean of their
        window and leaves missing truths out of the loss.
    scaler : {"standard", None}, default="standard"
        Standardise columns inside; forecasts come back in the units of the data.
    variates : {"fixed", "any"}, default="fixed"
        With ``"any"`` a fitted model forecasts tables of another number of columns
        too (its weights do not depend on it); needs ``scaler=None``.
    learning_rate : float, default=1e-4
        Rate of Adam.
    learning_rate_schedule : {"halving", "constant", "cosine"}, default="halving"
        ``"halving"`` is the published one: the rate halves every epoch from the third
        on. On small tables, where an epoch is a few steps, ``"cosine"`` with more
        epochs trains further.
    batch_size : int, default=32
        Windows per step.
    max_epochs : int, default=10
        Passes over the windows, at most.
    patience : int or None, default=3
        Epochs in a row that may be worse than the best before training stops.
    validation_fraction : float, default=0.1
        Share of the rows, at the end, for early stopping and calibrated intervals.
    refit_on_all : bool, default=False
        Train again on all rows for as many epochs as were best.
    random_state : int, RandomState, Generator or None, default=None
        Seed of weights, shuffling and dropout; an integer gives the same bits again
        on a CPU.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"``.
    precision : {"float32", "bfloat16", "float64"}, default="float32"
        ``"bfloat16"`` computes under autocast; the scan stays in float32.
    verbose : int, default=0
        1 shows progress.
    checkpoint_dir : path-like, optional
        Folder for checkpoints; a run that was cut off resumes from it.

    Attributes
    ----------
    network_ : SMambaNetwork
        The trained network.
    history_ : list of dict
        Epoch, losses, learning rate and seconds.
    best_epoch_, n_epochs_, stopped_
        Epoch of the weights, epochs run, and why training ended.
    n_parameters_ : int
        Number of weights.
    calendar_ : tuple of str
        Calendar features in use.
    constant_targets_ : tuple
        Targets that never change in the training data.

    Raises
    ------
    InputError
        For parameters out of range, too few rows, or unknown columns.
    DataQualityError
        For NaN, infinity or irregular times.

    References
    ----------
    Wang et al., Is Mamba effective for time series forecasting?, arXiv:2403.11144.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.sin(np.arange(120)[:, None] / 3 + np.arange(3))
    >>> model = SMambaForecaster(lookback=12, horizon=4, d_model=8, max_epochs=1,
    ...                          random_state=0)
    >>> model.fit(X).predict().shape
    (4, 3)
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **TORCH_FORECASTER_RULES,
        "d_model": Integer(1),
        "d_ff": AnyOf(Nothing(), Integer(1)),
        "n_layers": Integer(1),
        "d_state": Integer(1),
        "d_conv": Integer(1),
        "expand": Integer(1),
        "use_norm": Boolean(),
    }

    def __init__(
        self,
        *,
        lookback: int = 96,
        horizon: int = 24,
        d_model: int = 128,
        d_ff: int | None = None,
        n_layers: int = 2,
        d_state: int = 2,
        d_conv: int = 2,
        expand: int = 1,
        dropout: float = 0.1,
        use_norm: bool = True,
        loss: str = "mse",
        targets: Any = None,
        calendar: Any = "auto",
        missing: str = "error",
        scaler: str | None = "standard",
        variates: str = "fixed",
        learning_rate: float = 1e-4,
        learning_rate_schedule: str = "halving",
        batch_size: int = 32,
        max_epochs: int = 10,
        patience: int | None = 3,
        validation_fraction: float = 0.1,
        refit_on_all: bool = False,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        verbose: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.lookback = lookback
        self.horizon = horizon
        self.d_model = d_model
        self.d_ff = d_ff
        self.n_layers = n_layers
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.dropout = dropout
        self.use_norm = use_norm
        self.loss = loss
        self.targets = targets
        self.calendar = calendar
        self.missing = missing
        self.scaler = scaler
        self.variates = variates
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.refit_on_all = refit_on_all
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose
        self.checkpoint_dir = checkpoint_dir

    @classmethod
    def published(cls, dataset: str, *, horizon: int = 96, **changes: Any) -> Self:
        """Return the published settings for a benchmark data set.

        Parameters
        ----------
        dataset : str
            ETTh1, ETTh2, ETTm1, ETTm2, exchange_rate, weather, solar, electricity,
            traffic, PEMS03, PEMS04, PEMS07 or PEMS08.
        horizon : int, default=96
            One of the published horizons: 96, 192, 336, 720 (PEMS: 12, 24, 48, 96).
        **changes : dict
            Parameters to set otherwise.

        Returns
        -------
        SMambaForecaster
            Not fitted.

        Examples
        --------
        >>> SMambaForecaster.published("ETTh1", horizon=192).learning_rate
        7e-05
        """
        if not isinstance(dataset, str) or dataset not in _PUBLISHED:
            raise InputError(
                f"no settings were published for {dataset!r}, only for "
                f"{list(_PUBLISHED)}",
                where="dataset",
                hint=nearest_name(dataset, _PUBLISHED)
                or "For other data set the parameters of SMambaForecaster(...).",
            )
        horizons, *values, has_marks = _PUBLISHED[dataset]
        if horizon not in horizons:
            raise InputError(
                f"horizon {horizon} was not published for {dataset}, only {horizons}",
                where="horizon",
                hint=f"Take the nearest and change it: .set_params(horizon={horizon}).",
            )
        column = horizons.index(horizon)
        settings = {
            name: value[column] if isinstance(value, tuple) else value
            for name, value in zip(_FIELDS, values, strict=True)
        }
        settings["calendar"] = HOURLY_MARKS if has_marks else None
        return cls(lookback=96, horizon=horizon, **{**settings, **changes})

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        if self.variates == "any" and self.scaler is not None:
            problems.append(
                f"variates='any' does not go with scaler={self.scaler!r}, whose "
                "statistics belong to the columns of fit: set scaler=None"
            )
        return problems

    def _make_network(self) -> nn.Module:
        return SMambaNetwork(
            self.lookback,
            self.horizon,
            d_model=self.d_model,
            d_ff=self.d_model if self.d_ff is None else self.d_ff,
            n_layers=self.n_layers,
            d_state=self.d_state,
            d_conv=self.d_conv,
            expand=self.expand,
            dropout=self.dropout,
            use_norm=self.use_norm,
        )

    def _n_tokens(self, n_columns: int) -> int:
        return n_columns + len(self.calendar_)
