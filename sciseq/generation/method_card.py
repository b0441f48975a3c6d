"""What a method is in a few lines: the settings of its parts, and what it is good for.

Every estimator that the registry lists under ``"generation"`` has a ``method_card`` of
its own; the page of generators in the docs is printed from the registry and these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Literal

from sciseq.errors import CapabilityError
from sciseq.registry import Method

__all__ = ["MethodCard", "method_card_of"]


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """Settings of the parts of a method, each in one or two plain sentences.

    Parameters
    ----------
    idea : str
        The method in two sentences.
    order : str
        In which order tokens come, and how many in one pass.
    mask : str
        Who reads whom.
    corruption : str
        What is hidden in training.
    objective : str
        What training minimises, and what the network predicts.
    decoder : str
        How a pass chooses its tokens.
    cache : {"exact", "approximate", "none"}
        Whether keys and values that are read again equal what would be computed anew.
    score : {"exact", "bound", "estimate", "none"}
        What ``score_samples`` returns.
    good_for, not_for : str
        When to take it, and when not.
    picture : dict of str, optional
        Parameters of the estimator in its picture; None where there is no picture.

    Examples
    --------
    >>> from sciseq.registry import method_by_name
    >>> method_card_of(method_by_name("block-diffusion")).cache
    'exact'
    """

    idea: str
    order: str
    mask: str
    corruption: str
    objective: str
    decoder: str
    cache: Literal["exact", "approximate", "none"]
    score: Literal["exact", "bound", "estimate", "none"]
    good_for: str
    not_for: str
    picture: Mapping[str, Any] | None = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        """Return the settings of the parts, by the words that readers know them by."""
        titles = {"mask": "who reads whom", "corruption": "hidden in training"}
        names = [one.name for one in fields(self)]
        kept = names[names.index("order") : names.index("good_for")]
        return {titles.get(name, name): getattr(self, name) for name in kept}


def method_card_of(method: Method) -> MethodCard:
    """Return the card of a method, which its class has itself.

    Parameters
    ----------
    method : Method
        A line of the registry, for generation.

    Raises
    ------
    CapabilityError
        When the class has none: a card is not inherited.
    """
    estimator = getattr(import_module(method.module_name), method.class_name)
    card = vars(estimator).get("method_card")
    if not isinstance(card, MethodCard):
        raise CapabilityError(
            f"{method.class_name} has no method_card",
            where=f"registry, {method.name!r}",
            hint="Give the class a `method_card: ClassVar[MethodCard]` of its own.",
        )
    return card
