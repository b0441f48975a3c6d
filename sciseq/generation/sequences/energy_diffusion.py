r"""Masked diffusion whose candidates are weighed by an energy (EDLM).

Axes: ``batch`` (B), ``position`` (L), ``token`` (V), ``d_model`` (D).

A denoiser predicts hidden tokens independently of each other. An energy of whole
sequences tells which of them go together. Card: sequences §8.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.corruption import bernoulli_mask, ensure_one
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.energy_decoder import Energy, EnergyDecoder, log_partition
from sciseq.generation.parts.estimates import mean_and_error
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.noise import content_keys, uniform
from sciseq.generation.parts.requests import is_counted
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.sequences.autoregressive import (
    NextTokenLoss,
    next_token_scores,
)
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionSequence,
    denoising_scores,
)
from sciseq.nn.initialization import build_network
from sciseq.parameters import AnyOf, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.training import generator_for, resolve_seed

__all__ = ["ENERGIES", "EnergyDiffusionSequence", "EnergyNetwork"]

ENERGIES = ("nce", "autoregressive", "carry_over")

# --- Energies ------------------------------------------------------------------------


class EnergyNetwork(nn.Module):
    r"""An energy of a whole sequence, given what was shown of it.

    .. math::

        E = w^\top \mathrm{gelu}\left(W\,\mathrm{mean}_i\,
        \mathrm{Transformer}(A [e(x_t), e(x_0)])_i\right)

    Parameters
    ----------
    network : SequenceNetwork
        The transformer, as that of the denoiser.
    d_model : int
        Its width.
    """

    def __init__(self, network: SequenceNetwork, d_model: int) -> None:
        super().__init__()
        self.network = network
        self.join = nn.Linear(2 * d_model, d_model)
        self.hidden = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, 1)

    def forward(
        self, clean: Tensor, shown: Tensor, condition: Condition | None
    ) -> Tensor:
        """Return the energies (batch,) of sequences (batch, position)."""
        n_batch, length = clean.shape
        layout = Layout.of(length, block=length, copy=NOISY, device=clean.device)
        both = [self.network.embed(one, layout) for one in (shown, clean)]
        before, its_layout = self.network.prefix(n_batch, condition)
        x = torch.cat([before, self.join(torch.cat(both, dim=2))], dim=1)
        states = self.network(x, its_layout.followed_by(layout), full)
        pooled = states[:, its_layout.n_rows :].mean(dim=1)
        energies: Tensor = self.out(F.gelu(self.hidden(pooled))).squeeze(1)
        return energies


class NoiseContrastiveLoss(NoisyLoss):
    r"""Tell true sequences from those that a denoiser completes.

    .. math:: -\log \sigma(-E(x_0, x_t)) - \log \sigma(E(\tilde x_0, x_t)),
        \qquad \tilde x_0 \sim \mu(\cdot \mid x_t)

    Its minimum is :math:`E = -\log p(x_0 | x_t) + \log \mu(x_0 | x_t)`: low energies
    are those of true sequences.

    Parameters
    ----------
    seed : int
        Seed of the noise.
    proposal : SequenceNetwork
        The denoiser, which is not trained.
    """

    def __init__(self, seed: int, proposal: SequenceNetwork) -> None:
        super().__init__(seed)
        self.proposal = proposal

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of sequences."""
        tokens, condition = batch.tokens, batch.condition
        proposal = self.proposal.to(tokens.device).eval()
        maskable = torch.ones_like(tokens, dtype=torch.bool)
        u = self.noise(network, batch, 0, tokens.shape[1])
        level = self.noise(network, batch, 1, 1)[:, 0]
        # Without a mask there is nothing to tell apart.
        mask = ensure_one(bernoulli_mask(maskable, level, u), maskable, u)
        shown = tokens.masked_fill(mask, proposal.mask)
        with torch.no_grad():
            scores = denoising_scores(proposal, shown, condition).double()
            noise = self.noise(network, batch, 2, scores[0].numel()).view_as(scores)
            drawn = (scores - torch.log(-torch.log(noise))).argmax(dim=2)
        true = network(tokens, shown, condition)
        made = network(drawn.where(mask, tokens), shown, condition)
        return F.softplus(true).sum() + F.softplus(-made).sum(), torch.tensor(len(u))


def learned_energy(network: nn.Module) -> Energy:
    """Return the energy that a network has learned."""

    def energy(
        clean: Tensor, shown: Tensor, log_mu: Tensor, condition: Condition | None
    ) -> Tensor:
        values: Tensor = network(clean, shown, condition)
        return values

    return energy


def autoregressive_energy(
    network: SequenceNetwork, *, carries_over: bool = False
) -> Energy:
    r"""Return the energy by which a causal network replaces the law of the denoiser.

    .. math:: E = -\log p_{AR}(x_0) + \log \mu(x_0 \mid x_t)

    Parameters
    ----------
    network : SequenceNetwork
        Causal network.
    carries_over : bool, default=False
        Whether conditionals of tokens that were shown are 1: then Z is 1.
    """

    def energy(
        clean: Tensor, shown: Tensor, log_mu: Tensor, condition: Condition | None
    ) -> Tensor:
        scores = next_token_scores(network, clean, condition)
        logs = log_probabilities(scores, clean)
        if carries_over:
            logs = logs.where(shown == network.mask, 0.0)
        return log_mu - logs.sum(dim=1)

    return energy


# --- The estimator -------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class EnergyDiffusionSequence(SequenceGenerator):
    r"""Masked diffusion that weighs whole candidates by an energy.

    .. math::

        p(x_0 \mid x_t) = \mu(x_0 \mid x_t) \, e^{-E(x_0, x_t)} / Z(x_t)

    Parameters
    ----------
    energy : {"nce", "autoregressive", "carry_over"}, default="nce"
        Learned by noise-contrastive estimation; from an autoregressive model; or from
        it with conditionals of 1 for tokens that are uncovered already.
    n_candidates : int, default=4
        Candidates k of a pass. 1 is masked diffusion.
    window : float, default=0.5
        Candidates are compared while at least a share 1 - w is hidden.
    energy_temperature : float, default=1.0
        Divides the energies.
    n_steps : int, optional
        Passes of the denoiser for a sequence; by default one for each token.
    n_estimates : int, default=32
        Draws for an estimate of the likelihood.
    n_partition : int, default=8
        Candidates, for each of them, that estimate Z.
    **others
        As in :class:`AutoregressiveSequence`; both networks have these sizes.

    Attributes
    ----------
    proposal_ : MaskedDiffusionSequence
        The denoiser :math:`\mu`, trained first and then left as it is.
    network_ : nn.Module
        The network of the energy.

    Notes
    -----
    A chosen candidate has the law above for many candidates; for few it lies between
    that and :math:`\mu`.

    :meth:`score_samples` is exact with ``"carry_over"``, where it is the likelihood of
    the autoregressive model: the mean over masks of

    .. math:: \frac Lk \sum_{i \in S} \log p_{AR}(x_i \mid x_{<i}), \quad |S| = k

    Otherwise it estimates the bound of masked diffusion with
    :math:`\log \mu - E - \log \hat Z`. Its :math:`\log \hat Z` comes from candidates
    and is too large on average when they are many, so that the whole is an estimate of
    a lower bound, but not a bound for every number of candidates.

    A learned energy is taught that sequences of the training data are true and what the
    denoiser completes is not: a sequence that is held out for validation counts as not
    true. Where the data hold nearly all sequences that there are, validation then
    prefers the first epochs, whose energy is 0; ``validation_fraction=0`` trains to the
    end. Of what needs all tokens at once, such as a parity, a learned energy may show
    nothing for a thousand steps; an autoregressive one learns it sooner.

    Ends behind a sequence are ordinary tokens of both networks. The published code
    prefers high energies where its loss makes those of true sequences low, and mixes up
    the candidates of a batch; here low energies are preferred, and a sequence does not
    depend on the others of its batch.

    Card: sequences §8.

    References
    ----------
    Energy-based diffusion language models for text generation, arXiv:2410.21357, 2024.

    Examples
    --------
    >>> model = EnergyDiffusionSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Masked diffusion proposes several whole sequences in a pass, and an "
        "energy of whole sequences picks one. It mends what tokens drawn "
        "independently get wrong.",
        order="Any order, as masked diffusion.",
        mask="Everybody reads everybody; an autoregressive energy reads causally.",
        corruption="As masked diffusion; the energy learns from its proposals.",
        objective="Masked diffusion first; then noise-contrastive estimation, or the "
        "loss of the next token for an autoregressive energy.",
        decoder="Draws k candidates, weighs them by exp(-E), keeps some tokens of the "
        "one chosen.",
        cache="none",
        score="estimate",
        good_for="Meant for few passes, where tokens that are uncovered together "
        "depend on each other.",
        not_for="Cheap samples: a pass computes k candidates. A learned energy did "
        "not find parity in our short training.",
        picture={"n_steps": 4},
    )

    energy: str = "nce"
    n_candidates: int = 4
    window: float = 0.5
    energy_temperature: float = 1.0
    n_steps: int | None = None
    n_estimates: int = 32
    n_partition: int = 8

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **SequenceGenerator._parameter_rules,
        "energy": Option(*ENERGIES),
        "n_candidates": Integer(1),
        "window": Real(0.0, 1.0),
        "energy_temperature": Real(0.0, open_low=True),
        "n_steps": AnyOf(Nothing(), Integer(1)),
        "n_estimates": Integer(1),
        "n_partition": Integer(2),
    }

    # ------------------------------------------------------------------ fitting

    def _fit_parts(self, parts: list[tuple[Tensor, Condition | None]]) -> None:
        shared = {
            one.name: getattr(self, one.name) for one in fields(SequenceGenerator)
        }
        if self.checkpoint_dir is not None:  # one folder holds one run
            shared["checkpoint_dir"] = Path(self.checkpoint_dir) / "proposal"
        proposal = MaskedDiffusionSequence(**shared, n_steps=self.n_steps)
        proposal.alphabet_ = self.alphabet_
        proposal.condition_coding_ = self.condition_coding_
        proposal._fit_parts(parts)
        proposal.n_features_in_ = 1
        self.proposal_ = proposal
        super()._fit_parts(parts)

    def _loss(self, seed: int) -> NoisyLoss:
        if self.energy == "nce":
            return NoiseContrastiveLoss(seed, self.proposal_._network())
        return NextTokenLoss(seed, None)

    def _make_network(self) -> nn.Module:
        network = cast(SequenceNetwork, super()._make_network())
        if self.energy == "nce":
            return EnergyNetwork(network, int(self.d_model))
        return network

    def _initial_weights(self) -> dict[str, Tensor] | None:
        """Start from the denoiser, with an energy of 0."""
        if self.energy != "nce":
            return None
        source = generator_for(resolve_seed(self.random_state), "weights")
        weights = dict(build_network(self._make_network, source).state_dict())
        for name, one in self.proposal_.network_.state_dict().items():
            weights[f"network.{name}"] = one.detach().cpu()
        for name in ("out.weight", "out.bias"):
            weights[name] = torch.zeros_like(weights[name])
        return weights

    # ------------------------------------------------------- sampling and scores

    def _network(self) -> SequenceNetwork:
        """Return the denoiser, ready to predict."""
        network = self.proposal_.network_.to(self._run_device())
        return cast(SequenceNetwork, network.eval())

    def _energy(self) -> Energy:
        network = self.network_.eval()
        if self.energy == "nce":
            return learned_energy(network)
        return autoregressive_energy(
            cast(SequenceNetwork, network), carries_over=self.energy == "carry_over"
        )

    def _decoder(self, drawing: Drawing) -> EnergyDecoder:
        return EnergyDecoder(
            drawing,
            Reveal("random", equal_amounts(self.n_steps)),
            self._energy(),
            n_candidates=int(self.n_candidates),
            window=float(self.window),
            temperature=float(self.energy_temperature),
        )

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        if self.energy == "carry_over":
            network = cast(SequenceNetwork, self.network_.eval())
            scores = next_token_scores(network, tokens, condition)
            counted = is_counted(tokens, self.alphabet_.end)
            logs = log_probabilities(scores, tokens).where(counted, 0.0)
            found = logs.sum(dim=1)
            return found, torch.zeros_like(found)
        n, energy = int(self.n_estimates), self._energy()
        return mean_and_error(
            energy_bound(self._network(), energy, tokens, condition,
                         (seed, number, n), int(self.n_partition))
            for number in range(n)
        )  # fmt: skip


def energy_bound(
    network: SequenceNetwork,
    energy: Energy,
    tokens: Tensor,
    condition: Condition | None,
    draw: tuple[int, int, int],
    n_partition: int,
) -> Tensor:
    r"""Return one estimate of the bound of log-likelihoods (batch,), from exact counts.

    .. math:: \frac Lk \left( \sum_{i \in S} \log \mu(x_i \mid x_{\setminus S})
        - E(x, x_{\setminus S}) - \log \hat Z \right), \qquad |S| = k \sim U\{1..L\}

    Parameters
    ----------
    network : SequenceNetwork
        The denoiser.
    energy : callable
        See ``Energy``.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    condition : Condition or None
        Of them.
    draw : tuple of int
        Seed, number of this draw, and how many there are: counts are stratified.
    n_partition : int
        Candidates that estimate Z, at least 2.
    """
    seed, number, n_draws = draw
    n_batch, length = tokens.shape
    item = content_keys(tokens)
    seeds = torch.full_like(item, seed)
    place = torch.arange(length, device=tokens.device).unsqueeze(0)
    level = (uniform(seeds, item, -2) + number / n_draws) % 1.0
    count = (level * length).floor().long() + 1
    u = uniform(seeds, item.unsqueeze(1), number, place)
    mask = u.argsort(dim=1).argsort(dim=1) < count.unsqueeze(1)
    shown = tokens.masked_fill(mask, network.mask)
    scores = denoising_scores(network, shown, condition)

    def log_weight(clean: Tensor) -> tuple[Tensor, Tensor]:
        log_mu = log_probabilities(scores, clean).where(mask, 0.0).sum(dim=1)
        return log_mu, -energy(clean, shown, log_mu, condition)

    of = item ^ seed
    made = [
        Drawing()(scores, of, place.expand(n_batch, -1),
                  purpose=number * n_partition + j).where(mask, tokens)
        for j in range(n_partition)
    ]  # fmt: skip
    _, log_z = log_partition(torch.stack([log_weight(one)[1] for one in made], dim=1))
    log_mu, minus_energy = log_weight(tokens)
    return (log_mu + minus_energy - log_z) * (length / count)
