r"""How many hidden tokens each step of a parallel decoder reveals, fixed beforehand.

Axes: ``batch`` (rows), ``step``. Symbols: L or m tokens that are masked at the start, K
or T steps, t level of noise, F tokens that are still masked.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.errors import InputError, nearest_name

__all__ = ["PLANS", "equal_transfer", "shifted_time", "transfer_plan"]

PLANS = ("shifted", "linear", "cosine")

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def equal_transfer(n_masked: Tensor, n_steps: int) -> Tensor:
    r"""Spread the masked positions of each row evenly over the steps.

    .. math:: n_s = \lfloor m / T \rfloor + [s < m \bmod T]

    Parameters
    ----------
    n_masked : Tensor of int64, shape (batch,)
        Masked positions m at the start.
    n_steps : int
        Steps T, at least 1.

    Returns
    -------
    Tensor of int64, shape (batch, step)
        Positions to reveal at each step; with fewer positions than steps, the last
        steps have none.

    Raises
    ------
    InputError
        When there is no step.

    Examples
    --------
    >>> import torch
    >>> equal_transfer(torch.tensor([7, 2]), 3).tolist()
    [[3, 2, 2], [1, 1, 0]]
    """
    if n_steps < 1:
        raise InputError(f"n_steps is {n_steps}; must be at least 1", where="n_steps")
    m = n_masked.unsqueeze(1)
    step = torch.arange(n_steps, device=n_masked.device)
    return m // n_steps + (step < m % n_steps).to(torch.int64)


def shifted_time(t: Tensor, alpha: float) -> Tensor:
    r"""Shift levels of noise.

    .. math:: s_\alpha(t) = \frac{\alpha t}{1 + (\alpha - 1) t}

    Parameters
    ----------
    t : Tensor
        Levels from 0 to 1.
    alpha : float
        Above 0. Below 1 the level falls fast at first when t runs from 1 to 0, so that
        more tokens are revealed early; 1 changes nothing.

    Returns
    -------
    Tensor
        Levels from 0 to 1; shifting by 1 / alpha takes them back.

    Raises
    ------
    InputError
        When alpha is not above 0.

    Examples
    --------
    >>> import torch
    >>> shifted_time(torch.tensor([0.0, 0.5, 1.0]), 3).tolist()
    [0.0, 0.75, 1.0]
    """
    if not 0 < alpha < float("inf"):
        raise InputError(f"alpha is {alpha}; must be above 0", where="alpha")
    # This form of the denominator gives exactly 1 at t = 1.
    return alpha * t / (alpha * t + (1 - t))


def transfer_plan(
    length: int, n_steps: int, *, plan: str = "shifted", alpha: float = 1 / 3
) -> Tensor:
    r"""Plan how many tokens each step reveals, at least one per step.

    .. math::
        \min_{0 = F_0 < F_1 < \dots < F_K = L} \sum_{i=1}^{K-1}
        \left(F_i - L f(i / K)\right)^2

    over integers, where :math:`F_i` tokens are masked with i steps to go and f is

    - shifted: :math:`s_\alpha` of :func:`shifted_time`,
    - linear: :math:`f(t) = t`,
    - cosine: :math:`f(t) = \tfrac12 (1 - \cos \pi t)`.

    Parameters
    ----------
    length : int
        Tokens L that are masked at the start.
    n_steps : int
        Steps K, from 1 to ``length``.
    plan : {"shifted", "linear", "cosine"}, default "shifted"
        The curve f.
    alpha : float, default 1/3
        Of the shifted curve: below 1 more is revealed early, 1 is linear.

    Returns
    -------
    Tensor of int64, shape (step,)
        Tokens revealed at each step in the order of decoding,
        :math:`F_K - F_{K-1}, \dots, F_1 - F_0`; they sum to L. The minimum is exact, by
        dynamic programming; of equally good plans the one that reveals more early.

    Raises
    ------
    InputError
        When a number is out of range or the plan unknown.

    References
    ----------
    LaViDa: a large diffusion language model for multimodal understanding,
    arXiv:2505.16839, 2025 (the curves). Its code rounds differences and then mends
    their sum; the plan here is the nearest one.

    Examples
    --------
    >>> transfer_plan(32, 8).tolist()
    [10, 6, 5, 3, 3, 2, 2, 1]
    >>> transfer_plan(4, 4).tolist()
    [1, 1, 1, 1]
    """
    if not 1 <= n_steps <= length:
        raise InputError(
            f"n_steps is {n_steps} and length {length}; n_steps must be at least 1 and "
            "at most length: every step reveals a token",
            where="n_steps",
        )
    t = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    # Rounded, so that what is midway stays so on every machine.
    targets = (length * _curve(plan, t, alpha)).numpy().round(9)
    masked = _nearest_increasing(targets, length)
    return torch.from_numpy(np.diff(masked)[::-1].copy())


def _curve(plan: str, t: Tensor, alpha: float) -> Tensor:
    if plan == "shifted":
        return shifted_time(t, alpha)
    if plan == "linear":
        return t
    if plan == "cosine":
        return (1 - (torch.pi * t).cos()) / 2
    raise InputError(
        f"plan is {plan!r}; must be one of {', '.join(PLANS)}",
        where="plan",
        hint=nearest_name(plan, PLANS),
    )


def _nearest_increasing(targets: FloatArray, length: int) -> IntArray:
    """Strictly increasing integers from 0 to length that are nearest to targets."""
    n_steps = len(targets) - 1
    values = np.arange(length + 1)
    # Least cost of F_0 .. F_i with F_i = value (i, value).
    costs = np.full((n_steps + 1, length + 1), np.inf)
    costs[0, 0] = 0
    for i in range(1, n_steps + 1):
        before = np.minimum.accumulate(costs[i - 1])[:-1]
        costs[i, 1:] = before + (values[1:] - targets[i]) ** 2
    masked = np.empty(n_steps + 1, dtype=np.int64)
    masked[-1] = length
    for i in range(n_steps, 0, -1):
        masked[i - 1] = costs[i - 1, : masked[i]].argmin()
    return masked
