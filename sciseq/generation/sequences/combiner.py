r"""Autoregressive generation where far tokens are read through spans (Combiner).

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).

Card: sequences §13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.combiner_backbone import CombinerTransformer
from sciseq.generation.parts.combiner_lockstep import generate_spans_in_step
from sciseq.generation.parts.combiner_plans import PLANS
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Backbone, SequenceNetwork
from sciseq.generation.parts.requests import Requests, Work
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.parameters import AnyOf, Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["CombinerSequence"]


class _Plans:
    """Rule of a parameter that names one plan, or several."""

    names = tuple(PLANS)

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        plans = (value,) if isinstance(value, str) else value
        return (
            isinstance(plans, list | tuple)
            and len(plans) > 0
            and all(isinstance(one, str) and one in PLANS for one in plans)
        )

    def describe(self) -> str:
        """Say what is allowed."""
        return f"one or several of {', '.join(map(repr, PLANS))}"


@dataclass(kw_only=True, eq=False, repr=False)
class CombinerSequence(AutoregressiveSequence):
    r"""Generate long sequences token by token, at less than quadratic cost.

    .. math:: p(x) = \prod_i p(x_i \mid x_{<i}, c)

    where every token reads all before it: near ones directly, far ones through the
    summaries of spans, see
    :func:`~sciseq.generation.parts.combiner_attention.combiner_attention`.

    Parameters
    ----------
    plan : str or list of str, default="fixed"
        How what comes before a token is divided: ``"fixed"``, ``"logsparse"``,
        ``"axial_vertical"`` or ``"axial_row_major"``. Several give the mean of what
        they find.
    span : int, optional
        Length of a span (``"fixed"``) or of a row (axial plans), in tokens; by default
        the square root of the longest sequence, rounded up.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    A span that holds the whole sequence, the begin and the condition, or a span of one
    token, gives :class:`AutoregressiveSequence` itself, with the same weights.

    :meth:`score_samples` is exact, in one pass, and samples have exactly this law.

    Training and scoring cost less than the square of the length L with each plan, and
    so does sampling with ``"fixed"`` alone. There the summary of a span of length s is
    computed once, with its last token, and a token reads at most s + L / s rows in each
    layer. With other plans, or several, what all tokens so far read is computed anew
    for each token: attention to the whole sequence, L times, which is more than
    :class:`AutoregressiveSequence` takes. That is of the order of :math:`L^2 \log L`
    for ``"logsparse"`` and of :math:`L^{2.5}` for the axial plans.

    A condition of several rows, such as peaks, is told as their mean. ``last_work``
    counts as read all rows that are stored.

    Card: sequences §13 (Ren et al., arXiv:2107.05768).

    Examples
    --------
    >>> model = CombinerSequence(max_epochs=2, span=3, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTACGT", "ACGGACGG"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Autoregression in which near tokens are read directly and far ones "
        "through summaries of spans. Everything is read, at less than quadratic cost: "
        "in training and scoring with each plan, in sampling with the fixed one.",
        order="From left to right, one token in a pass.",
        mask="All earlier tokens: directly, or through the span they are in.",
        corruption="Nothing.",
        objective="Cross-entropy of the next token.",
        decoder="As autoregressive. With the fixed plan a token reads its own span and "
        "summaries that were made once; with others all is summarised anew for it.",
        cache="exact",
        score="exact",
        good_for="Meant for long sequences (thousands of tokens).",
        not_for="Short ones, where full attention is as fast and exact in what it "
        "looks up; samples of long ones with another plan than the fixed one. On grids "
        "in raster order axial layers were better.",
        picture={"span": 3},
    )

    plan: str | Sequence[str] = "fixed"
    span: int | None = None

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **AutoregressiveSequence._parameter_rules,
        "plan": _Plans(),
        "span": AnyOf(Nothing(), Integer(1)),
    }

    def _run_requests(
        self, network: SequenceNetwork, drawing: Drawing, requests: Requests
    ) -> tuple[Tensor, Work]:
        backbone = network.backbone
        if isinstance(backbone, CombinerTransformer) and backbone.plan == ("fixed",):
            return generate_spans_in_step(network, drawing, requests)
        return super()._run_requests(network, drawing, requests)

    def _make_backbone(self) -> Backbone:
        return CombinerTransformer(
            self.alphabet_.n_tokens,
            self.alphabet_.n_positions,
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            int(self.n_heads),
            float(self.dropout),
            self.plan,
            None if self.span is None else int(self.span),
        )
