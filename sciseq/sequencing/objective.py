"""Losses of the hybrid network, and the stages of its training.

Axes: ``batch`` (B), ``place`` (L), ``token`` (V), ``slot`` (T).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.decoding.ctc import best_alignment
from sciseq.sequencing.encoder import Memory
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.network import PeptideNetwork, Targets

__all__ = [
    "CrossTraining",
    "JointTraining",
    "PeptideBatch",
    "annealed_weight",
    "glancing_factor",
    "hinted",
]


class PeptideBatch(NamedTuple):
    """Spectra and their peptides."""

    peaks: Peaks
    targets: Targets


def annealed_weight(progress: float, *, least_other: float = 0.0) -> float:
    r"""Weight of the autoregressive loss after a share of the training.

    .. math:: \lambda(i) = \min(i / N, 1 - w)

    Parameters
    ----------
    progress : float
        Step over number of steps, i / N.
    least_other : float, default 0.0
        Smallest weight w that the other loss keeps.

    Returns
    -------
    float
        The weight.

    Notes
    -----
    Card: peptide §10, importance annealing: the nonautoregressive decoder alone at the
    start, the autoregressive one alone at the end.

    Examples
    --------
    >>> annealed_weight(0.0), annealed_weight(1.0), annealed_weight(1, least_other=0.1)
    (0.0, 1.0, 0.9)
    """
    return min(max(progress, 0.0), 1.0 - least_other)


def glancing_factor(epoch: int) -> float:
    r"""Factor on the share of symbols that a glancing curriculum reveals.

    .. math:: f = \max(0.93 - 0.01\,q, 0)

    Parameters
    ----------
    epoch : int
        Epoch q, counted from 0.

    Notes
    -----
    Card: peptide §9 (RefineNovo).

    Examples
    --------
    >>> glancing_factor(0), round(glancing_factor(43), 6), glancing_factor(100)
    (0.93, 0.5, 0.0)
    """
    return max(0.93 - 0.01 * epoch, 0.0)


def hinted(
    oracle: Tensor, found: Tensor, draws: Tensor, factor: float, *, unknown: int
) -> Tensor:
    r"""Reveal symbols of the right path, the more of them the more were wrong.

    .. math::

        P(u_t = \hat\pi_t) = e f, \qquad
        e = |\{t : \hat\pi_t \ne \arg\max_a s_{ta}\}| / T

    Parameters
    ----------
    oracle : Tensor of int64, shape (batch, slot)
        The right path :math:`\hat\pi`.
    found : Tensor of int64, shape (batch, slot)
        The most probable symbols.
    draws : Tensor, shape (batch, slot)
        Numbers from the uniform distribution over [0, 1).
    factor : float
        f, see :func:`glancing_factor`.
    unknown : int
        Stands where nothing is revealed.

    Returns
    -------
    Tensor of int64, shape (batch, slot)
        A guess u.

    Notes
    -----
    Card: peptide §9 (RefineNovo).

    Examples
    --------
    >>> import torch
    >>> oracle, found = torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 1, 1, 1]])
    >>> draws = torch.tensor([[0.1, 0.4, 0.3, 0.9]])  # half of the symbols were wrong
    >>> hinted(oracle, found, draws, 0.7, unknown=9).tolist()
    [[0, 9, 2, 9]]
    """
    error = (oracle != found).to(draws.dtype).mean(dim=1, keepdim=True)
    return oracle.where(draws < error * factor, unknown)


class JointTraining:
    r"""Loss of the joint training, :math:`\lambda L_{AT} + (1 - \lambda) L_{NAT}`.

    Parameters
    ----------
    annealing : bool, default True
        Move the weight with the steps; else both losses weigh one half.
    least_other : float, default 0.0
        Smallest weight that the nonautoregressive loss keeps.
    n_epochs : int, default 1
        Epochs of the training, which the steps belong to in equal parts.

    Attributes
    ----------
    weight : float
        The weight of the next step. A network with one decoder has one loss.
    factor : float
        How much the next step reveals to a network with glancing.

    Notes
    -----
    Validation losses are those of both decoders in equal parts, so that epochs can be
    compared.
    """

    def __init__(
        self, *, annealing: bool = True, least_other: float = 0.0, n_epochs: int = 1
    ) -> None:
        self.annealing = annealing
        self.least_other = least_other
        self.n_epochs = n_epochs
        self.factor = glancing_factor(0)
        self.weight = 0.5  # until a step begins: its memory is that of both decoders

    def on_step(self, step: int, n_steps: int) -> None:
        """Set the weight of a step, counted from 0."""
        self.factor = glancing_factor(step * self.n_epochs // n_steps)
        if self.annealing:
            progress = step / max(n_steps - 1, 1)
            self.weight = annealed_weight(progress, least_other=self.least_other)

    def __call__(
        self, network: nn.Module, batch: PeptideBatch
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the number of residues with the ends."""
        assert isinstance(network, PeptideNetwork)
        memory = network.encode(batch.peaks)
        weight = self.weight if network.training else 0.5
        if network.autoregressive is None:
            weight = 0.0
        if network.nonautoregressive is None:
            weight = 1.0
        total = memory.tokens.new_zeros(())
        if weight > 0:
            read = network.cross_memory(memory, None)
            total = total + weight * forced_loss(network, batch, read)
        if weight < 1:
            loss = path_loss(network, batch, memory, self.factor)
            total = total + (1 - weight) * loss
        return total, _n_scored(batch)


class CrossTraining:
    """Loss of the cross-decoder training: the autoregressive decoder alone learns.

    It reads the states of the other decoder, which stay as they are behind the gradient
    block, as does the encoder.

    Notes
    -----
    Card: peptide §10, stage 2. The caller sets ``requires_grad`` of what learns, see
    :meth:`PeptideNetwork.begin_cross_training`.
    """

    def __call__(
        self, network: nn.Module, batch: PeptideBatch
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the number of residues with the ends."""
        assert isinstance(network, PeptideNetwork)
        memory = network.encode(batch.peaks)
        states = network.slot_states(batch.peaks, memory)
        read = network.cross_memory(memory, states)
        return forced_loss(network, batch, read), _n_scored(batch)


def forced_loss(network: PeptideNetwork, batch: PeptideBatch, read: Memory) -> Tensor:
    """Cross-entropy of what comes at every place, summed."""
    tokens, lengths = batch.targets
    scores = network.forced_scores(batch.peaks, read, batch.targets)
    stop = scores.shape[-1] - 1
    places = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    wanted = F.pad(tokens, (0, 1), value=stop)
    wanted = wanted.where(places < lengths[:, None], stop)
    wanted = wanted.where(places <= lengths[:, None], -100)  # nothing is asked there
    return F.cross_entropy(
        scores.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum"
    )


def path_loss(
    network: PeptideNetwork,
    batch: PeptideBatch,
    memory: Memory,
    factor: float = 0.0,
) -> Tensor:
    """CTC loss of all paths that collapse to the peptide, summed.

    A peptide that needs more symbols than there are slots has no path, and no part.
    A network with glancing learns from hints, see :func:`hinted`, and is validated
    without.
    """
    decoder = network.nonautoregressive
    assert decoder is not None
    if network.training and decoder.guesses is not None:
        return _glancing_loss(network, batch, memory, factor)
    states = network.slot_states(batch.peaks, memory)
    return _ctc_loss(network.symbol_scores(states), batch.targets)


def _glancing_loss(
    network: PeptideNetwork, batch: PeptideBatch, memory: Memory, factor: float
) -> Tensor:
    """Sum of the losses after a look at hints, and after a look at what came of them.

    The hints are parts of that right path which the network thinks most probable.
    """
    decoder = network.nonautoregressive
    assert decoder is not None
    memory, places = network.slot_inputs(batch.peaks, memory)
    with torch.no_grad():
        states = decoder(batch.peaks, memory, None, places)
        scores = network.symbol_scores(states)
        logs = scores.float().log_softmax(dim=-1)
        oracle, _ = best_alignment(logs, *batch.targets, blank=logs.shape[-1] - 1)
        draws, found = decoder.draws(len(logs)), scores.argmax(dim=-1)
        guess = hinted(oracle, found, draws, factor, unknown=decoder.unknown)
    total = memory.tokens.new_zeros(())
    for _ in range(2):
        states = decoder(batch.peaks, memory, guess, places)
        scores = network.symbol_scores(states)
        total = total + _ctc_loss(scores, batch.targets)
        guess = scores.argmax(dim=-1)
    return total


def _ctc_loss(scores: Tensor, targets: Targets) -> Tensor:
    logs = scores.float().log_softmax(-1).transpose(0, 1)  # (slot, batch, symbol)
    tokens, lengths = targets
    slots = torch.full_like(lengths, logs.shape[0])
    return F.ctc_loss(
        logs,
        tokens,
        slots,
        lengths,
        blank=logs.shape[-1] - 1,
        reduction="sum",
        zero_infinity=True,
    )


def _n_scored(batch: PeptideBatch) -> Tensor:
    return (batch.targets.lengths + 1).sum()
