"""Forecasters inside a forecaster, each under a name.

Their parameters are those of the whole, as ``name__parameter``: scikit-learn's searches
and ``clone`` reach them.
"""

from collections.abc import Sequence
from typing import Any, Self

from sciseq.base import SequenceEstimator
from sciseq.errors import InputError, nearest_name
from sciseq.forecasting.base import BaseForecaster

__all__ = ["Members", "NamedMembers"]


class Members:
    """The rule for the members: a list of pairs of a name and a forecaster."""

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        if not isinstance(value, list | tuple) or not value:
            return False
        pairs = all(isinstance(one, list | tuple) and len(one) == 2 for one in value)
        return pairs and all(
            isinstance(name, str) and isinstance(member, BaseForecaster)
            for name, member in value
        )

    def describe(self) -> str:
        """Say what is allowed."""
        return "a list of pairs (name, forecaster of sciseq)"


class NamedMembers(SequenceEstimator):
    """The part of an ensemble that knows its members by name."""

    forecasters: Sequence[tuple[str, BaseForecaster]] | None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, and with ``deep`` the members and theirs.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add each member under its name, and its parameters as
            ``name__parameter``.

        Returns
        -------
        dict
        """
        params: dict[str, Any] = super().get_params(deep=False)
        for name, member in self._named(self.forecasters).items() if deep else ():
            params[name] = member
            for key, value in member.get_params(deep=True).items():
                params[f"{name}__{key}"] = value
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, members by their name, and theirs as ``name__parameter``.

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
        own = self.get_params(deep=False)
        members = self._named(params.get("forecasters", self.forecasters))
        for name in params:
            first = name.partition("__")[0]
            if first not in members and name not in own:
                valid = [*own, *members]
                raise InputError(
                    f"Invalid parameter {name!r} for estimator {type(self).__name__}; "
                    f"valid parameters are: {valid}",
                    where="set_params",
                    hint=nearest_name(first, valid)
                    or "Parameters of a member are written name__parameter.",
                )
        for name in own.keys() & params.keys():
            setattr(self, name, params[name])
        if members.keys() & params.keys():
            members |= {name: params[name] for name in members.keys() & params.keys()}
            self.forecasters = list(members.items())
        for name, value in params.items():
            first, separator, rest = name.partition("__")
            if separator and first in members:
                members[first].set_params(**{rest: value})
        return self

    @staticmethod
    def _named(forecasters: Any) -> dict[str, BaseForecaster]:
        """Members by name; none where what was given is refused in fit."""
        return dict(forecasters) if Members().allows(forecasters) else {}
