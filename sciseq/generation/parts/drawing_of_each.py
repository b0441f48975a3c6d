"""Drawing for requests that were asked for in other ways.

Axes: ``batch`` (active requests), ``row``, ``token`` (V).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing

__all__ = ["DrawingOfEach"]


class DrawingOfEach:
    """Draws for each request of a batch the way that it was submitted with.

    Attributes
    ----------
    of : list of Drawing
        That of each request.
    """

    def __init__(self) -> None:
        self.of: list[Drawing] = []

    def __call__(
        self,
        scores: Tensor,
        seeds: Tensor,
        position: Tensor,
        allowed: Tensor | None = None,
        purpose: int | Tensor = 0,
    ) -> Tensor:
        """Draw one token for each row, as :class:`Drawing`."""

        def draw(drawing: Drawing, items: Tensor) -> Tensor:
            return drawing(
                scores[items],
                seeds[items],
                position.expand(len(self.of), -1)[items],
                _of(allowed, items),
                purpose[items] if isinstance(purpose, Tensor) else purpose,
            )

        return self._for_each(draw, scores.device)

    def law(self, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the logarithms of the probabilities that are drawn from."""

        def law(drawing: Drawing, items: Tensor) -> Tensor:
            return drawing.law(scores[items], _of(allowed, items))

        return self._for_each(law, scores.device)

    def _for_each(
        self, make: Callable[[Drawing, Tensor], Tensor], device: torch.device
    ) -> Tensor:
        """Make something for the requests of each way, and put it in their order."""
        items, made = [], []
        for drawing in dict.fromkeys(self.of):
            some = [i for i, one in enumerate(self.of) if one == drawing]
            items += some
            made.append(make(drawing, torch.tensor(some, device=device)))
        order = torch.tensor(items, device=device).argsort()
        return torch.cat(made)[order]


def _of(allowed: Tensor | None, items: Tensor) -> Tensor | None:
    return allowed if allowed is None or len(allowed) == 1 else allowed[items]
