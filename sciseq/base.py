"""What every sciseq estimator shares, whatever its data: parameters, state, saving."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sciseq.errors import InputError, nearest_name
from sciseq.parameters import Rule, check_parameters

__all__ = ["SequenceEstimator"]


class SequenceEstimator(BaseEstimator):
    """Base of all sciseq estimators.

    Subclasses store their constructor arguments untouched, declare a rule for each in
    ``_parameter_rules``, and learn attributes whose names end in ``_``.
    """

    _parameter_rules: ClassVar[dict[str, Rule]] = {}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; a misspelt name is refused with the nearest valid one.

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
            For an unknown name.
        """
        valid = self.get_params(deep=False)
        for name in params:
            if name.partition("__")[0] not in valid:
                raise InputError(
                    f"Invalid parameter {name!r} for estimator "
                    f"{type(self).__name__}; valid parameters are: {sorted(valid)}",
                    where="set_params",
                    hint=nearest_name(name, valid) or "get_params() shows all of them.",
                )
        super().set_params(**params)
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the estimator without pickle, to be read by :func:`sciseq.load`.

        Parameters
        ----------
        path : path-like
            A folder, or a single file when the name ends in ``.zip`` or ``.sciseq``.
        overwrite : bool, default=False
            Replace a model that is already there; it stays whole until the new one
            is complete.

        Raises
        ------
        CapabilityError
            For a parameter that cannot be saved, such as a function.
        InputError
            When the path exists and ``overwrite`` is False.
        """
        from sciseq.persistence import save

        save(self, path, overwrite=overwrite)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def _check_is_fitted(self) -> None:
        check_is_fitted(
            self,
            msg="This %(name)s is not fitted yet. Call 'fit' with training data first.",
        )

    def _check_parameters(self) -> None:
        """Check all parameters, and raise every problem together."""
        check_parameters(
            self.get_params(deep=False),
            self._parameter_rules,
            owner=type(self).__name__,
            relations=self._parameter_relations,
        )

    def _parameter_relations(self) -> list[str]:
        """Messages about parameters that do not fit together."""
        return []

    def _fitted_attributes(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("__")
        }

    def _forget(self) -> None:
        """Drop what an earlier fit learnt."""
        for name in self._fitted_attributes():
            delattr(self, name)

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fitted attributes, and the weights of networks as arrays, for saving."""
        return self._fitted_attributes(), {}

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        """Take up what :meth:`_get_saved_state` gave."""
        for name, value in attributes.items():
            setattr(self, name, value)

    def _check_n_features(self, given: int) -> None:
        """Refuse another number of columns than in fit (scikit-learn's message)."""
        expected = self.n_features_in_
        if given != expected:
            raise InputError(
                f"X has {given} features, but {type(self).__name__} is expecting "
                f"{expected} features as input",
                where="X.columns",
                hint="Give the same columns as in fit.",
            )

    def _set_features(self, columns: tuple[Any, ...] | None, n_columns: int) -> None:
        """Set scikit-learn's attributes about the columns of the training data."""
        self.n_features_in_ = n_columns
        if columns is not None and all(isinstance(label, str) for label in columns):
            self.feature_names_in_ = np.array(columns, dtype=object)
