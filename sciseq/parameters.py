"""Declared rules for constructor parameters, checked all at once in ``fit``.

Each estimator class carries one table ``{parameter name: rule}``. All violations are
collected and raised together, before any work starts.
"""

import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sciseq.errors import InputError, nearest_name

__all__ = [
    "AnyOf",
    "Boolean",
    "Instance",
    "Integer",
    "Nothing",
    "Option",
    "Real",
    "Rule",
    "check_parameters",
]


class Rule(Protocol):
    """What a parameter may be."""

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        ...

    def describe(self) -> str:
        """Say what is allowed, for messages."""
        ...


@dataclass(frozen=True)
class Integer:
    """A whole number of at least ``low``."""

    low: int = 1

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and int(value) >= self.low

    def describe(self) -> str:
        """Say what is allowed."""
        return f"an integer of at least {self.low}"


@dataclass(frozen=True)
class Real:
    """A finite number between ``low`` and ``high``, ends included unless open."""

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the range of floats
            return False
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return math.isfinite(number) and above and below

    def describe(self) -> str:
        """Say what is allowed."""
        if math.isinf(self.high):
            word = "above" if self.open_low else "of at least"
            return f"a number {word} {self.low:g}"
        low = f"{'(' if self.open_low else '['}{self.low:g}"
        high = f"{self.high:g}{')' if self.open_high else ']'}"
        return f"a number in {low}, {high}"


@dataclass(frozen=True)
class Boolean:
    """True or False."""

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        return type(value).__name__ in ("bool", "bool_")

    def describe(self) -> str:
        """Say what is allowed."""
        return "True or False"


@dataclass(frozen=True)
class Nothing:
    """None."""

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        return value is None

    def describe(self) -> str:
        """Say what is allowed."""
        return "None"


class Option:
    """One of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        return isinstance(value, str) and value in self.names

    def describe(self) -> str:
        """Say what is allowed."""
        names = ", ".join(repr(name) for name in self.names)
        return names if len(self.names) == 1 else f"one of {names}"


class Instance:
    """An object of some types, described in words."""

    def __init__(self, words: str, *types: type) -> None:
        self.words = words
        self.types = types

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        return isinstance(value, self.types)

    def describe(self) -> str:
        """Say what is allowed."""
        return self.words


class AnyOf:
    """Any one of several rules."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self.names = [name for rule in rules for name in getattr(rule, "names", ())]

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        return any(rule.allows(value) for rule in self.rules)

    def describe(self) -> str:
        """Say what is allowed."""
        return " or ".join(rule.describe() for rule in self.rules)


PATH = AnyOf(Nothing(), Instance("a path", str, os.PathLike))


def check_parameters(
    parameters: Mapping[str, Any],
    rules: Mapping[str, Rule],
    *,
    owner: str,
    relations: Callable[[], list[str]] | None = None,
) -> None:
    """Check parameters against their rules and raise all violations together.

    Parameters
    ----------
    parameters : mapping
        Names and values.
    rules : mapping
        Rule for each name; names without a rule are free.
    owner : str
        Class name, for the message.
    relations : callable, optional
        Called when each parameter alone is fine; returns messages about parameters
        that do not fit together.

    Raises
    ------
    InputError
        With one line per violation.

    Examples
    --------
    >>> check_parameters({"horizon": 2}, {"horizon": Integer(1)}, owner="Model")
    """
    problems = []
    for name in sorted(rules):
        value = parameters[name]
        if rules[name].allows(value):
            continue
        guess = nearest_name(value, getattr(rules[name], "names", ()))
        problems.append(
            f"{name}={value!r} is not allowed: must be {rules[name].describe()}"
            + (f". {guess}" if guess else "")
        )
    if not problems and relations is not None:
        problems = relations()
    if problems:
        raise InputError(
            "; ".join(problems),
            where=f"parameters of {owner}",
            hint=f"Change with {owner}(...) or set_params(...).",
        )
