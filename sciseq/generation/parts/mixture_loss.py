"""A loss whose objective is drawn anew for every sequence and step.

Axes: ``batch``, ``evaluation``, ``configuration`` (k of K).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.network import Condition
from sciseq.generation.parts.objective_mixture import (
    MixtureController,
    evaluation_steps,
)
from sciseq.generation.parts.prefix_network import PrefixNetwork
from sciseq.generation.parts.recall_objectives import (
    ObjectiveConfiguration,
    RecallVocabulary,
    build_row,
)
from sciseq.generation.parts.recall_rows import IntegerArray, RecallRow, collate_rows
from sciseq.generation.parts.requests import is_counted

__all__ = ["MixtureLoss", "rows_loss", "training_row"]

_LEAST_LOSS = 1e-6  # rewards need positive losses


def training_row(
    configuration: ObjectiveConfiguration,
    sequence: IntegerArray,
    vocabulary: RecallVocabulary,
    generator: np.random.Generator,
) -> RecallRow:
    """Make a row of a sequence; of next tokens where the objective cannot be asked.

    Parameters
    ----------
    configuration, sequence, vocabulary, generator
        As in :func:`~sciseq.generation.parts.recall_objectives.build_row`. A sequence
        may be of one symbol here.

    Examples
    --------
    >>> row = training_row(
    ...     ObjectiveConfiguration("selective_copying"), np.array([2, 0]),
    ...     RecallVocabulary(3), np.random.default_rng(0),
    ... )
    >>> row.labels.tolist()  # there is no span between delimiters
    [2, 0, 4]
    """
    try:
        return build_row(configuration, sequence, vocabulary, generator)
    except InputError:
        paradigm = vocabulary.paradigm("next_token")
        return RecallRow(np.array([paradigm]), np.append(sequence, vocabulary.done))


def rows_loss(
    network: PrefixNetwork, rows: Sequence[RecallRow], condition: Condition | None
) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of rows, and the number of their labels.

    Parameters
    ----------
    network : PrefixNetwork
        What predicts labels.
    rows : sequence of RecallRow
        Inputs and labels.
    condition : Condition or None
        Of each row.
    """
    words, device = network.recurrent.vocabulary, network.recurrent.symbols.device
    batch = collate_rows(rows, begin=words.begin, padding=words.padding)
    tokens, targets, is_scored, in_prefix = (
        torch.from_numpy(one).to(device) for one in batch[:4]
    )
    # What stands before BEGIN, or behind the labels, predicts nothing.
    states = network.label_states(tokens, in_prefix, condition)[is_scored]
    wanted = network.recurrent.label_number(targets[is_scored])
    scores = network.recurrent.label_scores(states)
    return F.cross_entropy(scores, wanted, reduction="sum"), is_scored.sum()


class MixtureLoss(NoisyLoss):
    r"""Cross-entropy of labels, the objective of each row drawn from a mixture.

    .. math::

        k \sim p, \quad (inputs, labels) = build_k(x), \quad
        L = -\sum_i \log p(label_i \mid inputs, label_{<i})

    Parameters
    ----------
    seed : int
        Seed of all draws: those of a row depend on it, the number of its sequence and
        the step.
    end : int or None
        Sequences go as far as their first end.
    configurations : sequence of ObjectiveConfiguration
        What may be asked.
    controller : MixtureController
        Chooses the probabilities p.
    held : SequenceBatch or None
        Sequences on which the loss of every configuration is evaluated for the
        controller. None for a controller that does not need to know them.
    n_steps : int
        Steps of the whole training.

    Attributes
    ----------
    history : list of dict
        Step, losses and the probabilities chosen then, of each evaluation.

    Notes
    -----
    Validation draws from the uniform mixture, whatever the controller says, so that
    epochs can be compared.
    """

    def __init__(
        self,
        seed: int,
        end: int | None,
        configurations: Sequence[ObjectiveConfiguration],
        controller: MixtureController,
        held: SequenceBatch | None,
        n_steps: int,
    ) -> None:
        super().__init__(seed)
        self.end, self.configurations = end, list(configurations)
        self.controller, self.held = controller, held
        self.history: list[dict[str, Any]] = []
        self._evaluated_at = evaluation_steps(n_steps)
        self._tests: list[list[RecallRow]] = []

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of labels."""
        assert isinstance(network, PrefixNetwork)
        if network.training and self.held is not None:
            self._evaluate_in_time(network, self.held)
            self.inform(network)
        return rows_loss(network, self.rows(network, batch), batch.condition)

    def rows(self, network: PrefixNetwork, batch: SequenceBatch) -> list[RecallRow]:
        """Return a training row of each sequence."""
        n, step, action = len(self.configurations), 0, None
        if network.training:
            step, action = self._step + 1, self.controller.action
        made = []
        for number, one in zip(
            batch.number.tolist(), _sequences(batch.tokens, self.end), strict=True
        ):
            generator = np.random.default_rng([self.seed, step, number])
            chosen = self.configurations[generator.choice(n, p=action)]
            words = network.recurrent.vocabulary
            made.append(training_row(chosen, one, words, generator))
        return made

    # What the controller is told

    def inform(self, network: PrefixNetwork) -> None:
        """Tell the controller the evaluations that it does not know.

        In a resumed run those are what the network remembers of the run's beginning.

        Parameters
        ----------
        network : PrefixNetwork
            What is trained.
        """
        n_known = int(_is_known(network).sum())
        for number in range(len(self.history), n_known):
            losses = network.evaluations[number].double().cpu().numpy()
            with torch.autocast("cpu", enabled=False):
                self.controller.observe(self._evaluated_at[number], losses)
            self.history.append(
                {
                    "step": self._evaluated_at[number],
                    "losses": losses.tolist(),
                    "probabilities": self.controller.action.tolist(),
                }
            )

    def _evaluate_in_time(self, network: PrefixNetwork, held: SequenceBatch) -> None:
        number = int(_is_known(network).sum())
        if self._evaluated_at[number : number + 1] == [self._step]:
            network.evaluations[number] = self._evaluate(network, held)

    def _evaluate(self, network: PrefixNetwork, held: SequenceBatch) -> Tensor:
        """Return the mean loss (configuration,) of each configuration."""
        device = network.evaluations.device
        condition = held.condition and Condition(
            *(x.to(device) for x in held.condition)
        )
        if not self._tests:
            self._tests = self._test_rows(network.recurrent.vocabulary, held)
        network.eval()
        try:
            with torch.no_grad():
                found = [rows_loss(network, rows, condition) for rows in self._tests]
        finally:
            network.train()
        losses = torch.stack([total / count for total, count in found])
        return losses.clamp_min(_LEAST_LOSS)

    def _test_rows(
        self, vocabulary: RecallVocabulary, held: SequenceBatch
    ) -> list[list[RecallRow]]:
        sequences = _sequences(held.tokens, self.end)
        return [
            [
                training_row(
                    configuration, one, vocabulary,
                    np.random.default_rng([self.seed, 0, k, number]),
                )
                for number, one in enumerate(sequences)
            ]
            for k, configuration in enumerate(self.configurations)
        ]  # fmt: skip


def _is_known(network: PrefixNetwork) -> Tensor:
    return network.evaluations[:, 0] > 0


def _sequences(tokens: Tensor, end: int | None) -> list[IntegerArray]:
    """Cut sequences (batch, position) behind their first ends."""
    lengths = is_counted(tokens, end).sum(dim=1).tolist()
    rows = tokens.cpu().numpy()
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]
