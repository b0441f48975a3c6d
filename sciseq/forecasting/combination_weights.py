"""Weights of a combination of forecasts, from the products of their errors.

Axis legend: J members.
"""

import numpy as np
from scipy.optimize import nnls

from sciseq.data.panel import FloatArray

__all__ = ["by_inverse_error", "stacked"]


def by_inverse_error(products: FloatArray) -> FloatArray:
    """Weights as one over the squared error of each member.

    Parameters
    ----------
    products : ndarray of shape (J, J)
        Sums of products of the errors of two members.

    Returns
    -------
    ndarray of shape (J,)
        Sum to one; members without any error share it among them.

    Examples
    --------
    >>> by_inverse_error(np.diag([1.0, 3.0])).tolist()
    [0.75, 0.25]
    """
    errors = np.diag(products)
    best = errors == 0 if (errors == 0).any() else 1 / np.where(errors > 0, errors, 1.0)
    return np.asarray(best / best.sum())


def stacked(products: FloatArray) -> FloatArray:
    r"""Non-negative weights that sum to one, with the least squared error together.

    Parameters
    ----------
    products : ndarray of shape (J, J)
        Sums :math:`G` of products of the errors of two members.

    Returns
    -------
    ndarray of shape (J,)
        The :math:`w` of the simplex with the least :math:`w^\top G w`.

    Notes
    -----
    Non-negative least squares minimises :math:`w^\top G w + (1 - \sum_j w_j)^2`. With
    :math:`w = s u`, :math:`u` on the simplex, that is
    :math:`s^2\, u^\top G u + (1 - s)^2`, which over :math:`s` is least where
    :math:`u^\top G u` is: divided by their sum, the weights are those of the simplex.

    References
    ----------
    Breiman, Stacked regressions, Machine Learning 24, 1996.

    Examples
    --------
    >>> stacked(np.diag([1.0, 3.0])).round(6).tolist()
    [0.75, 0.25]
    """
    J, size = len(products), np.trace(products)
    values, vectors = np.linalg.eigh(products / size if size > 0 else products)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T  # root' root = G
    system = np.vstack([root, np.ones((1, J))])
    weights, _ = nnls(system, np.append(np.zeros(J), 1.0))
    return np.asarray(weights / weights.sum())
