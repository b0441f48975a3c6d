"""Search spaces: from plain tuples and lists to the distributions of Optuna."""

from collections.abc import Mapping
from typing import Any

from sciseq.errors import InputError, MissingDependencyError, nearest_name

__all__ = ["SearchSpace", "import_optuna"]


def import_optuna() -> Any:
    """Import Optuna.

    Raises
    ------
    MissingDependencyError
        When it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            "OptunaSearch needs Optuna, which is not installed",
            where="sciseq.model_selection.OptunaSearch",
            hint="Install it with: pip install 'sciseq[tuning]'",
        ) from None
    return optuna


class SearchSpace:
    """Distributions of parameters, and the values that their draws stand for.

    Parameters
    ----------
    space : mapping of str to object
        For each parameter a tuple (low, high) or (low, high, "log") of integers or
        floats, a list of choices, or a distribution of Optuna.
    valid : collection of str
        Names of the parameters of the estimator.

    Raises
    ------
    InputError
        For an unknown name, or a range that is none.
    """

    def __init__(self, space: Mapping[str, Any], valid: Any) -> None:
        if not isinstance(space, Mapping) or not space:
            raise InputError(
                f"space={space!r} is not allowed: must be a dict of parameters",
                where="space",
                hint='Give, for example, {"lookback": [24, 48], "alpha": (1e-4, 1.0)}.',
            )
        for name in space:
            if name not in valid:
                raise InputError(
                    f"the estimator has no parameter {name!r}",
                    where="space",
                    hint=nearest_name(name, valid)
                    or f"Parameters are {', '.join(sorted(valid))}.",
                )
        self._choices: dict[str, list[Any]] = {}
        self.distributions = {
            name: self._distribution(name, given) for name, given in space.items()
        }

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that a draw stands for."""
        return {
            name: self._choices[name][value] if name in self._choices else value
            for name, value in drawn.items()
        }

    def _distribution(self, name: str, given: Any) -> Any:
        distributions = import_optuna().distributions
        if isinstance(given, distributions.BaseDistribution):
            return given
        if isinstance(given, list) and given:
            if all(isinstance(one, bool | int | float | str | None) for one in given):
                return distributions.CategoricalDistribution(given)
            # Optuna keeps plain values only: others go by their place in the list.
            self._choices[name] = given
            return distributions.CategoricalDistribution(list(range(len(given))))
        if isinstance(given, tuple) and _is_range(given):
            low, high, *log = given
            kind = distributions.FloatDistribution
            if isinstance(low, int) and isinstance(high, int):
                kind = distributions.IntDistribution
            return kind(low, high, log=bool(log))
        raise InputError(
            f"space[{name!r}]={given!r} is not allowed: must be (low, high), "
            '(low, high, "log"), a list of choices, or a distribution of Optuna',
            where="space",
            hint="Low must be below high, and above 0 for a range in logarithms.",
        )


def _is_range(given: tuple[Any, ...]) -> bool:
    """Tell whether a tuple is (low, high) or (low, high, "log")."""
    if len(given) not in (2, 3) or given[2:] not in ((), ("log",)):
        return False
    ends = given[:2]
    if not all(isinstance(one, int | float) and type(one) is not bool for one in ends):
        return False
    return bool(ends[0] < ends[1] and (len(given) == 2 or ends[0] > 0))
