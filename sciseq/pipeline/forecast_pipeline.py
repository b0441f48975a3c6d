"""A scikit-learn pipeline that ends in a forecaster.

Axis legend: n windows or series, R rows, H horizon, C columns of the data, C' columns
after the steps, T targets.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils._user_interface import _print_elapsed_time
from sklearn.utils.validation import check_is_fitted, check_memory

from sciseq.base import SequenceEstimator
from sciseq.data.containers import read_panel
from sciseq.data.missing import apply_missing_choice
from sciseq.data.panel import FloatArray, Panel, located
from sciseq.errors import (
    CapabilityError,
    InputError,
    InputTypeError,
    NumericalError,
    nearest_name,
)
from sciseq.metrics import ForecastErrors
from sciseq.pipeline.step_chain import (
    StepChain,
    as_container,
    as_table,
    columns_after,
    join_rows,
    row_labels,
    rows_of,
    split_rows,
    take,
)
from sciseq.pipeline.step_checks import check_invertible, check_step, is_column_wise

__all__ = ["ForecastPipeline"]

# Points between the lowest and the highest quantile at which the inverse of the steps
# is looked at, to see whether it rises or falls.
GRID_POINTS = 65


class ForecastPipeline(Pipeline):
    r"""Transform, forecast, and undo the transforms on the forecast.

    With steps :math:`f = f_k \circ \dots \circ f_1` and a forecaster :math:`m`,

    .. math:: \hat y = f_1^{-1}(\dots f_k^{-1}(m(f(X)))) .

    A :class:`sklearn.pipeline.Pipeline` as ever (nested parameters, ``named_steps``,
    ``memory``), except that each step sees a table with the labels of the caller's,
    and that forecasts and scores are in the units of the data.

    Parameters
    ----------
    steps : list of (str, estimator)
        Transformers, and a forecaster at the end. Each transformer needs an
        ``inverse_transform``, and treats each row by itself; ``"passthrough"`` and
        None stand for no transformer.
    transform_input : None
        Not used: ``validation_data`` is always transformed.
    memory : str or object with the interface of joblib.Memory, optional
        Where fitted transformers are cached.
    verbose : bool, default=False
        Print the time that each step took to fit.

    Attributes
    ----------
    named_steps : Bunch
        Steps by name. The forecaster there works on transformed data.
    n_features_in_ : int
        Number of columns C.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where all are text.
    columns_ : tuple or None
        Labels of the columns.
    is_column_wise_ : bool
        Whether the steps treat each column by itself, as quantiles and ``targets=``
        of the forecaster need.
    context_ : Panel
        The last rows of the training data, which ``predict()`` continues.

    Notes
    -----
    The steps learn from all rows given to ``fit``, those included on which the
    forecaster validates. Missing values are treated as the forecaster's ``missing=``
    says, before the first step.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from sciseq import NaiveForecaster
    >>> X = np.array([[1.0], [10.0], [100.0], [1000.0]])
    >>> model = ForecastPipeline([
    ...     ("log", FunctionTransformer(np.log10, inverse_func=lambda z: 10.0**z)),
    ...     ("forecast", NaiveForecaster(horizon=2)),
    ... ])
    >>> model.fit(X).predict().ravel().tolist()
    [1000.0, 1000.0]
    """

    # ------------------------------------------------------------- parameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the pipeline and, as ``step__parameter``, of its steps.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For an unknown name, with the nearest valid one.
        """
        steps = params.get("steps", self.steps)
        valid = [*self.get_params(deep=False), *(name for name, _ in steps)]
        for name in params:
            if name.partition("__")[0] not in valid:
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; "
                    f"valid parameters are: {valid}",
                    where="set_params",
                    hint=nearest_name(name, valid)
                    or "Parameters of a step are written step__parameter.",
                )
        super().set_params(**params)
        return self

    @property
    def horizon(self) -> int:
        """Rows that the forecaster forecasts."""
        return int(self._forecaster.horizon)

    @property
    def n_features_in_(self) -> int:
        """Number of columns of the training data."""
        return int(getattr(self, "_n_columns", None) or super().n_features_in_)

    @property
    def feature_names_in_(self) -> npt.NDArray[Any]:
        """Names of the columns of the training data."""
        columns = getattr(self, "columns_", None)
        if columns is None or not all(isinstance(label, str) for label in columns):
            raise AttributeError("the training data had no names of columns")
        return np.array(columns, dtype=object)
