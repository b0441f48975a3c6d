"""Losses of the hybrid network, and the stages of its training.

Axes: ``batch`` (B), ``place`` (L), ``token`` (V), ``slot`` (T).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.sequencing.encoder import Memory
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.network import PeptideNetwork, Targets

__all__ = ["CrossTraining", "JointTraining", "PeptideBatch", "annealed_weight"]


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


class JointTraining:
    r"""Loss of the joint training, :math:`\lambda L_{AT} + (1 - \lambda) L_{NAT}`.

    Parameters
    ----------
    annealing : bool, default True
        Move the weight with the steps; else both losses weigh one half.
    least_other : float, default 0.0
        Smallest weight that the nonautoregressive loss keeps.

    Attributes
    ----------
    weight : float
        The weight of the next step. A network with one decoder has one loss.

    Notes
    -----
    Validation losses are those of both decoders in equal parts, so that epochs can be
    compared.
    """

    def __init__(self, *, annealing: bool = True, least_other: float = 0.0) -> None:
        self.annealing = annealing
        self.least_other = least_other
        self.weight = 0.5  # until a step begins: its memory is that of both decoders

    def on_step(self, step: int, n_steps: int) -> None:
        """Set the weight of a step, counted from 0."""
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
            total = total + (1 - weight) * path_loss(network, batch, memory)
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


def path_loss(network: PeptideNetwork, batch: PeptideBatch, memory: Memory) -> Tensor:
    """CTC loss of all paths that collapse to the peptide, summed.

    A peptide that needs more symbols than there are slots has no path, and no part.
    """
    scores = network.symbol_scores(network.slot_states(batch.peaks, memory))
    logs = scores.float().log_softmax(-1).transpose(0, 1)  # (slot, batch, symbol)
    tokens, lengths = batch.targets
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
