"""Choosing among the candidates of a search by more than the search knew.

Axes: ``candidate`` (n, of all spectra), ``feature`` (F), ``hidden`` (H).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.errors import DataQualityError
from sciseq.sequencing.candidate_features import FEATURES
from sciseq.sequencing.peptide_search import Found

__all__ = ["Reranker"]

FloatArray = npt.NDArray[np.float64]

_HIDDEN, _STEPS, _RATE, _DECAY = 8, 200, 0.02, 3.0
_FEWEST = 20


@dataclass(frozen=True)
class Reranker:
    r"""Small network from the features of a candidate to its probability.

    .. math:: p = \sigma(w_2^\top \tanh(W_1 (f - \mu) / s + b_1) + b_2 + v^\top f)

    Parameters
    ----------
    mean, scale : ndarray, shape (feature,)
        Of the features.
    weights : mapping of str to ndarray
        ``"W1"`` (hidden, feature), ``"b1"`` (hidden,), ``"w2"`` (hidden,), ``"v"``
        (feature,), ``"b2"`` (1,).

    Notes
    -----
    Trained on candidates of known truth with two losses of equal weight: whether each
    candidate is right, and which of its spectrum's candidates is.
    """

    mean: FloatArray
    scale: FloatArray
    weights: Mapping[str, FloatArray]

    @classmethod
    def fit(
        cls,
        features: Sequence[FloatArray],
        is_right: Sequence[npt.NDArray[np.bool_]],
        seed: int = 0,
    ) -> "Reranker":
        """Learn from the candidates of some spectra.

        Parameters
        ----------
        features : sequence of ndarray, shape (n_candidates, len(FEATURES))
            Features of each spectrum's candidates.
        is_right : sequence of ndarray of bool, shape (n_candidates,)
            Which of them are right.
        seed : int, default=0
            Of the first weights.

        Raises
        ------
        DataQualityError
            For fewer than twenty spectra with a right and a wrong candidate.
        """
        kept = [row for row, one in enumerate(features) if len(one)]
        telling = sum(is_right[row].any() and not is_right[row].all() for row in kept)
        if telling < _FEWEST:
            raise DataQualityError(
                f"{telling} of {len(features)} spectra have right and wrong "
                f"candidates, {_FEWEST} are needed",
                where="Reranker.fit",
                hint="Give more annotated spectra, or train the network longer.",
            )
        x = np.concatenate([features[row] for row in kept])
        y = np.concatenate([is_right[row] for row in kept])
        counts = [len(features[row]) for row in kept]
        mean, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        inputs = torch.from_numpy((x - mean) / scale)
        weights = _first_weights(x.shape[1], seed)
        _train(weights, inputs, torch.from_numpy(y.astype(float)), counts)
        trained = {name: one.detach().numpy() for name, one in weights.items()}
        return cls(mean, scale, trained)

    def log_probability(self, features: FloatArray) -> FloatArray:
        """Return the log-probabilities (candidate,) of being right."""
        weights = {name: torch.from_numpy(one) for name, one in self.weights.items()}
        x = torch.from_numpy((features - self.mean) / self.scale)
        return np.asarray(F.logsigmoid(_logits(weights, x)).numpy())

    def rank(self, found: Sequence[Found], features: FloatArray) -> list[Found]:
        """Return the candidates of a spectrum, most probable first.

        Their ``log_score`` becomes the logarithm of their probability.
        """
        logs = self.log_probability(features)
        order = np.argsort(-logs, kind="stable")
        return [found[one]._replace(log_score=float(logs[one])) for one in order]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for saving."""
        weights = {name: one.tolist() for name, one in self.weights.items()}
        return {
            "features": list(FEATURES),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "weights": weights,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Reranker":
        """Make it again from :meth:`to_dict`."""
        weights = {name: np.array(one) for name, one in state["weights"].items()}
        return cls(np.array(state["mean"]), np.array(state["scale"]), weights)


def _first_weights(n_features: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W1": (_HIDDEN, n_features), "b1": (_HIDDEN,), "w2": (_HIDDEN,),
              "v": (n_features,), "b2": (1,)}  # fmt: skip
    weights = {}
    for name, shape in shapes.items():
        first = torch.zeros(shape, dtype=torch.float64)
        if name in ("W1", "w2"):
            first.normal_(std=shape[-1] ** -0.5, generator=generator)
        weights[name] = first.requires_grad_()
    return weights


def _logits(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ weights["W1"].T + weights["b1"])
    return hidden @ weights["w2"] + x @ weights["v"] + weights["b2"]


def _train(
    weights: Mapping[str, Tensor], x: Tensor, y: Tensor, counts: Sequence[int]
) -> None:
    spectrum = torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(list(counts))
    )
    n_right = torch.zeros(len(counts), dtype=y.dtype).index_add(0, spectrum, y)
    share = y / n_right.clamp_min(1)[spectrum]
    # How many candidates are right is no matter of size: that weight does not decay.
    groups: list[dict[str, Any]] = [
        {"params": [weights[name] for name in ("W1", "b1", "w2", "v")]},
        {"params": [weights["b2"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=_DECAY)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        optimizer.zero_grad()
        logits = _logits(weights, x)
        each = F.binary_cross_entropy_with_logits(logits, y)
        normaliser = _logsumexp(logits, spectrum, len(counts))
        which = (share * (normaliser[spectrum] - logits)).sum() / len(counts)
        torch.autograd.backward(each + which)
        optimizer.step()


def _logsumexp(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    low = torch.full((n_groups,), -torch.inf, dtype=values.dtype)
    most = low.scatter_reduce(0, group, values.detach(), "amax")
    sums = torch.zeros_like(most).index_add(0, group, (values - most[group]).exp())
    return most + sums.log()
