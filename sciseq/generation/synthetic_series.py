"""Small synthetic series in bins, and histories of events, whose law is known.

Axes: ``sample``, ``place`` (t of a series), ``user``, ``item``. The numbers S6 and S8
are those of the card, sequences §0.6. Every draw comes from the generator passed.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sciseq.errors import InputError
from sciseq.generation.synthetic import check_at_least_one
from sciseq.generation.synthetic_chain import KnownChain

__all__ = ["EventHistories", "QuantisedSeries", "event_histories", "quantised_series"]

FloatArray: TypeAlias = NDArray[np.float64]
IntegerArray: TypeAlias = NDArray[np.int64]


class QuantisedSeries(NamedTuple):
    """Series, and the bins that their values fall into.

    Parameters
    ----------
    bins : ndarray of int64, shape (sample, place)
        Number of the bin of each value; those outside go to the first or last bin.
    values : ndarray, shape (sample, place)
        The series before quantisation.
    edges : ndarray, shape (n_bins + 1,)
        Borders of the bins, of equal widths.
    """

    bins: IntegerArray
    values: FloatArray
    edges: FloatArray


def quantised_series(
    n_samples: int,
    length: int,
    generator: np.random.Generator,
    *,
    n_bins: int = 32,
    coefficients: tuple[float, float] = (1.2, -0.4),
    amplitude: float = 2.0,
    period: float = 12.0,
) -> QuantisedSeries:
    r"""Draw autoregressive series with a season, in bins (S6).

    .. math::

        z_t = \phi_1 z_{t-1} + \phi_2 z_{t-2} + \varepsilon_t, \quad
        \varepsilon_t \sim N(0, 1), \qquad
        y_t = z_t + a \sin(2 \pi (t + u) / period)

    Parameters
    ----------
    n_samples, length : int
        How many series, and how long.
    generator : numpy.random.Generator
        Source of the noise and of the phases u, one for each series.
    n_bins : int, default 32
        Number of bins, over the amplitude and three standard deviations of z.
    coefficients : (float, float), default (1.2, -0.4)
        :math:`\phi_1` and :math:`\phi_2` of a stationary process, from which z starts.
    amplitude : float, default 2.0
        Amplitude a of the season.
    period : float, default 12.0
        Places of a season.

    Returns
    -------
    QuantisedSeries
        Bins, values and borders.

    Raises
    ------
    InputError
        When a number is out of range or the process is not stationary.

    Examples
    --------
    >>> import numpy as np
    >>> series = quantised_series(2, 24, np.random.default_rng(0))
    >>> series.bins.shape, len(series.edges)
    ((2, 24), 33)
    """
    check_at_least_one(n_samples=n_samples, length=length, n_bins=n_bins)
    phi_1, phi_2 = coefficients
    if not abs(phi_1) < 1 - phi_2 or not phi_2 > -1 or not period > 0:
        raise InputError(
            f"coefficients {coefficients}, period {period}: |phi_1| < 1 - phi_2, "
            "phi_2 > -1 and a positive period are needed",
            where="quantised_series",
        )
    noise = generator.standard_normal((n_samples, length))
    z, deviation = _autoregressive(noise, phi_1, phi_2)
    phase = generator.uniform(0, period, size=(n_samples, 1))
    season = amplitude * np.sin(2 * np.pi * (np.arange(length) + phase) / period)
    border = abs(amplitude) + 3 * deviation
    edges = np.linspace(-border, border, n_bins + 1)
    values = z + season
    bins = np.digitize(values, edges[1:-1])
    return QuantisedSeries(bins, values, edges)


def _autoregressive(
    noise: FloatArray, phi_1: float, phi_2: float
) -> tuple[FloatArray, float]:
    """Return a stationary process driven by noise, and its standard deviation."""
    rho_1 = phi_1 / (1 - phi_2)  # autocorrelations
    rho_2 = phi_1 * rho_1 + phi_2
    deviation = (1 - phi_1 * rho_1 - phi_2 * rho_2) ** -0.5
    z = np.empty_like(noise)
    z[:, 0] = deviation * noise[:, 0]
    if noise.shape[1] > 1:
        rest = deviation * (1 - rho_1**2) ** 0.5
        z[:, 1] = rho_1 * z[:, 0] + rest * noise[:, 1]
    for t in range(2, noise.shape[1]):
        z[:, t] = phi_1 * z[:, t - 1] + phi_2 * z[:, t - 2] + noise[:, t]
    return z, deviation


class EventHistories(NamedTuple):
    """Items that users have met, and the law behind them.

    Parameters
    ----------
    histories : list of ndarray of int64
        Items of each user, first to last.
    types : ndarray of int64, shape (user,)
        The hidden type of each user.
    chains : list of KnownChain
        The law of the items, for each type.
    popularity : ndarray, shape (item,)
        Probability of each item where no habit decides.
    """

    histories: list[IntegerArray]
    types: IntegerArray
    chains: list[KnownChain]
    popularity: FloatArray


def event_histories(
    n_users: int,
    generator: np.random.Generator,
    *,
    n_items: int = 50,
    n_types: int = 3,
    lengths: tuple[int, int] = (5, 30),
    habit: float = 0.6,
    skew: float = 1.0,
) -> EventHistories:
    r"""Draw histories of users of hidden types (S8).

    .. math::

        P(x_{t+1} = j \mid x_t = i, \text{type } k) =
        h\, [j = \sigma_k(i)] + (1 - h)\, q_j, \qquad q_j \propto j^{-s}

    Parameters
    ----------
    n_users : int
        How many histories.
    generator : numpy.random.Generator
        Source of the draws, also of the orders :math:`\sigma_k`.
    n_items, n_types : int
        How many items and types there are.
    lengths : (int, int), default (5, 30)
        Least and greatest length of a history; all are equally likely.
    habit : float, default 0.6
        Probability h that the type's own successor of the last item follows.
    skew : float, default 1.0
        Exponent s of the popularity q; 0 makes all items equally popular.

    Returns
    -------
    EventHistories
        Histories, types and law.

    Raises
    ------
    InputError
        When a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> events = event_histories(4, np.random.default_rng(0), lengths=(2, 2))
    >>> [len(history) for history in events.histories], len(events.chains)
    ([2, 2, 2, 2], 3)
    """
    check_at_least_one(n_users=n_users, n_items=n_items, n_types=n_types)
    least, greatest = lengths
    if not 1 <= least <= greatest or not 0 <= habit <= 1:
        raise InputError(
            f"lengths are {lengths} and habit {habit}; allowed are a range from at "
            "least 1, and [0, 1]",
            where="event_histories",
        )
    weights = np.arange(1, n_items + 1) ** -float(skew)
    popularity: FloatArray = weights / weights.sum()
    chains = []
    for _ in range(n_types):
        transition = np.tile((1 - habit) * popularity, (n_items, 1))
        transition[np.arange(n_items), generator.permutation(n_items)] += habit
        chains.append(KnownChain(transition, popularity))
    types = generator.integers(n_types, size=n_users)
    n_events = generator.integers(least, greatest + 1, size=n_users)
    histories = [
        chains[kind].sample(1, n, generator)[0]
        for kind, n in zip(types.tolist(), n_events.tolist(), strict=True)
    ]
    return EventHistories(histories, types, chains, popularity)
