"""Going on from an autoregressive model: its weights, alphabet and sizes.

A converted estimator keeps what it starts from through ``clone``, as parameters of a
search may change around it.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.base import SequenceGenerator
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.parts.backbone import TokenTransformer

__all__ = ["Converted"]

# Before the names of the weights that a saved estimator starts from.
_BASE = "base/"
_SIZES = ("d_model", "d_ff", "n_layers", "n_heads", "max_length", "precision")


class Converted(SequenceGenerator):
    """A generator that may start from a fitted autoregressive one."""

    @classmethod
    def from_autoregressive(cls, fitted: SequenceGenerator, **params: Any) -> Self:
        """Return a generator of the same sizes that goes on from a fitted one.

        Parameters
        ----------
        fitted : AutoregressiveSequence or MaskEnhancedAutoregressor
            Fitted; it is not changed.
        **params
            Parameters, as ``block_size`` and ``max_epochs``.

        Returns
        -------
        Estimator, to be fitted: fit goes on from the weights.

        Raises
        ------
        InputError
            For sizes that differ.
        InputTypeError
            For a network of another kind.
        """
        _check_transformer(fitted)
        for name in _SIZES:
            if params.get(name, getattr(fitted, name)) != getattr(fitted, name):
                raise InputError(
                    f"{name} is {params[name]!r}, the fitted model has "
                    f"{getattr(fitted, name)!r}",
                    where="from_autoregressive",
                    hint="Leave the sizes out.",
                )
        sizes = {name: getattr(fitted, name) for name in _SIZES}
        model = cls(**{**sizes, **params})
        weights = {
            name: one.detach().cpu().clone()
            for name, one in fitted.network_.state_dict().items()
        }
        model._base = (fitted.alphabet_, fitted.condition_coding_, weights)
        return model

    def __sklearn_clone__(self) -> Self:
        """Copy the parameters, and what the fit starts from."""
        params = {
            name: clone(one, safe=False)
            for name, one in self.get_params(deep=False).items()
        }
        made = type(self)(**params)
        if hasattr(self, "_base"):
            made._base = self._base
        return made

    def _codings(self, X: Any, y: Any) -> tuple[Alphabet, ConditionCoding | None]:
        if not hasattr(self, "_base"):
            return super()._codings(X, y)
        alphabet, coding, _ = self._base
        return alphabet, coding

    def _initial_weights(self) -> Mapping[str, Tensor] | None:
        if not hasattr(self, "_base"):
            return super()._initial_weights()
        weights: Mapping[str, Tensor] = self._base[2]
        return weights

    # ------------------------------------------------------------------ saving

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, weights = super()._get_saved_state()
        if hasattr(self, "_base"):
            alphabet, coding, base = self._base
            attributes["base"] = {
                "alphabet": alphabet.to_dict(),
                "condition_coding": None if coding is None else coding.to_dict(),
            }
            weights |= {_BASE + name: one.numpy() for name, one in base.items()}
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        own, learnt, base = dict(attributes), dict[str, Any](), dict[str, Tensor]()
        for name, one in weights.items():
            if name.startswith(_BASE):
                base[name.removeprefix(_BASE)] = torch.from_numpy(np.array(one))
            else:
                learnt[name] = one
        codes = own.pop("base", None)
        super()._set_saved_state(own, learnt)
        if codes is not None:
            coding = codes["condition_coding"]
            self._base = (
                self.alphabet_type.from_dict(codes["alphabet"]),
                None if coding is None else ConditionCoding.from_dict(coding),
                base,
            )


def _check_transformer(fitted: Any) -> None:
    """Raise unless the weights of a fitted generator are those of a transformer."""
    if isinstance(fitted, SequenceGenerator):
        fitted._check_is_fitted()
        network = getattr(fitted, "network_", None)
        if type(getattr(network, "backbone", None)) is TokenTransformer:
            return
    raise InputTypeError(
        f"fitted is a {type(fitted).__name__}; an AutoregressiveSequence or a "
        "MaskEnhancedAutoregressor is needed",
        where="from_autoregressive",
        hint="Only their weights fit the network of this generator.",
    )
