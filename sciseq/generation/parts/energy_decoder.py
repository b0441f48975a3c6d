r"""Choosing among whole candidates by their energy, before tokens are uncovered (EDLM).

Axes: ``batch`` (B), ``candidate`` (k), ``position`` (L), ``token`` (V). Symbols:
:math:`\mu` law of a denoiser, independent over hidden positions, E energy, Z partition
function. Card: sequences §8.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.noise import gumbel
from sciseq.generation.parts.requests import Requests, Rows
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder

__all__ = ["Energy", "EnergyDecoder", "log_partition"]

_PICK = -4  # tells the noise of the choice from all other

Energy = Callable[[Tensor, Tensor, Tensor, Condition | None], Tensor]
r"""From whole sequences (n, position), the symbols that were shown (n, position), the
:math:`\log \mu` of what was hidden (n,) and conditions, to energies (n,)."""


class EnergyDecoder(WholeDecoder):
    r"""Draw candidates for all that is hidden, take one by its energy, uncover a part.

    .. math::

        x^{(j)} \sim \mu(\cdot \mid x_t), \quad
        P(j) \propto \exp(-E(x^{(j)}, x_t) / \tau), \quad j = 1 \dots k

    For many candidates the one that is taken has the law
    :math:`\mu e^{-E / \tau} / Z`; for one candidate, or a constant energy, the law
    :math:`\mu`.

    Parameters
    ----------
    drawing : Drawing
        How candidates are drawn.
    reveal : Reveal
        Which tokens of the chosen candidate are kept.
    energy : callable
        See ``Energy``. Infinite: that cannot be.
    n_candidates : int, default=4
        Candidates k.
    window : float, default=0.5
        Candidates are compared while at least a share 1 - w of the positions is hidden;
        afterwards there is one.
    temperature : float, default=1.0
        :math:`\tau`, above 0.

    Notes
    -----
    A pass over energies counts as a pass of its own, with k L rows.
    """

    def __init__(
        self,
        drawing: Drawing,
        reveal: Reveal,
        energy: Energy,
        *,
        n_candidates: int = 4,
        window: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(drawing, reveal)
        self.energy, self.n_candidates = energy, n_candidates
        self.window, self.temperature = window, temperature

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Choose a candidate, and keep some of its tokens."""
        step, position = requests.memory["n_steps"], rows.layout.position
        chosen = self._candidate(requests, scores, 0)
        is_hidden = ~requests.is_filled
        share = is_hidden.double().mean(dim=1)
        # Shares and windows are ratios: a rounding error must not close the window.
        items = (share >= 1 - self.window - 1e-9).nonzero().flatten()
        if self.n_candidates > 1 and len(items):
            more = [
                self._candidate(requests, scores, number)
                for number in range(1, self.n_candidates)
            ]
            candidates = torch.stack([chosen, *more], dim=1)
            picked = self._pick(requests, scores, candidates, items)
            chosen = chosen.index_copy(0, items, picked)
        logs = Drawing().law(scores, requests.allowed)
        kept = self.reveal(logs, chosen, is_hidden, step, requests.seeds)
        requests.fill(position, chosen, kept)
        requests.memory["n_steps"] = step + 1

    def _candidate(self, requests: Requests, scores: Tensor, number: int) -> Tensor:
        """Draw all that is hidden (batch, position); the rest is what it is."""
        length = requests.n_positions
        position = torch.arange(length, device=scores.device).expand(len(requests), -1)
        # The first one is what masked diffusion draws. It takes at most L passes.
        purpose = requests.memory["n_steps"] + 1 + number * (length + 1)
        drawn = self.drawing(
            scores, requests.seeds, position, requests.allowed, purpose=purpose
        )
        return requests.tokens.where(requests.is_filled, drawn)

    def _pick(
        self, requests: Requests, scores: Tensor, candidates: Tensor, items: Tensor
    ) -> Tensor:
        """Choose a candidate (batch, candidate, position) for each of some requests."""
        candidates, k = candidates[items], self.n_candidates
        shown, condition = requests.tokens[items], requests.condition
        of = items.repeat_interleave(k)  # all candidates of a request, then the next
        values = self.energy(
            candidates.flatten(0, 1),
            requests.tokens[of],
            _log_mu(scores[items], candidates, shown == requests.mask).flatten(),
            None if condition is None else condition.take(of),
        ).view(len(items), k)
        number = torch.arange(k, device=items.device).unsqueeze(0)
        step = requests.memory["n_steps"][items].unsqueeze(1)
        noise = gumbel(requests.seeds[items], _PICK, step, number)
        best = (-values.double() / self.temperature + noise).argmax(dim=1)
        work, length = requests.work, requests.n_positions
        work.n_passes[requests.number[items]] += 1
        work.n_rows[requests.number[items]] += k * length
        return candidates[torch.arange(len(items), device=items.device), best]


def _log_mu(scores: Tensor, candidates: Tensor, is_hidden: Tensor) -> Tensor:
    """Log-probabilities (batch, candidate) of what is hidden, from the raw scores."""
    logs = torch.stack(
        [log_probabilities(scores, one) for one in candidates.unbind(dim=1)], dim=1
    )
    return logs.where(is_hidden.unsqueeze(1), 0.0).sum(dim=2)


def log_partition(minus_energy: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return estimates of the logarithm of the partition function from both sides.

    .. math::

        T_k = \log \frac1k \sum_{j=1}^k e^{-E_j}, \qquad
        E[T_k] \le \log Z \lesssim E[(2k - 1) T_k - 2 (k - 1) T_{k-1}]

    with the mean :math:`T_{k-1}` over all that leave one out.

    Parameters
    ----------
    minus_energy : Tensor, shape (batch, candidate)
        -E of at least two independent draws of :math:`\mu`.

    Returns
    -------
    lower, upper : Tensor, shape (batch,)
        The first is one in expectation, for every k; the second for k large enough.

    References
    ----------
    Deng et al., Residual energy-based models for text generation, ICLR 2020.

    Examples
    --------
    >>> import torch
    >>> lower, upper = log_partition(torch.zeros(1, 4))
    >>> float(lower), float(upper)
    (0.0, 0.0)
    """
    k = minus_energy.shape[1]
    lower = minus_energy.logsumexp(dim=1) - math.log(k)
    left_out = torch.eye(k, dtype=torch.bool, device=minus_energy.device)
    rest = minus_energy.unsqueeze(1).masked_fill(left_out, -torch.inf)
    without_one = (rest.logsumexp(dim=2) - math.log(k - 1)).mean(dim=1)
    return lower, (2 * k - 1) * lower - 2 * (k - 1) * without_one
