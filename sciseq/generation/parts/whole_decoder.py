"""Generation of all positions together: every pass computes the whole sequence.

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).
"""

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.parts.requests import Decoder, Requests, Rows
from sciseq.generation.parts.reveal import Reveal

__all__ = ["WholeDecoder"]


class WholeDecoder(Decoder):
    """Predict all hidden tokens in each pass, and keep some of them.

    Nothing is cached: everybody reads everybody.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    reveal : Reveal
        Which of them are kept.
    """

    keeps_prefix = False

    def __init__(self, drawing: Drawing, reveal: Reveal) -> None:
        self.drawing, self.reveal, self.rule = drawing, reveal, full

    def start(self, requests: Requests) -> None:
        """Count passes from 0."""
        requests.memory["n_steps"] = torch.zeros_like(requests.seeds)

    def rows(self, requests: Requests) -> Rows:
        """Compute all positions."""
        layout = Layout.of(
            requests.n_positions,
            block=requests.n_positions,
            copy=NOISY,
            device=requests.tokens.device,
        )
        return Rows(requests.tokens, layout.expand(len(requests)))

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Keep some of the drawn tokens."""
        step, position = requests.memory["n_steps"], rows.layout.position
        tokens = self.drawing(
            scores, requests.seeds, position, requests.allowed, purpose=step + 1
        )
        logs = Drawing().law(scores, requests.allowed)
        kept = self.reveal(logs, tokens, ~requests.is_filled, step, requests.seeds)
        requests.fill(position, tokens, kept)
        requests.memory["n_steps"] = step + 1
