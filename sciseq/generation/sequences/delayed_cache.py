r"""Masked diffusion with a delayed cache of keys and values (dKV-Cache).

Axes: those of :mod:`sciseq.generation.sequences.masked_diffusion`.

The model, its training and its likelihood are those of masked diffusion. Only sampling
differs: what was decoded is read from a cache, one pass late. Card: sequences §2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sciseq.errors import InputTypeError
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.delayed_decoder import VARIANTS, DelayedDecoder
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.parameters import Integer, Option
from sciseq.parameters import Rule as ParameterRule

__all__ = ["DelayedCacheDiffusion"]


@dataclass(kw_only=True, eq=False, repr=False)
class DelayedCacheDiffusion(MaskedDiffusionSequence):
    r"""Masked diffusion that computes only what is hidden or was decoded last.

    .. math::

        z = \mathrm{softmax}\left(Q_t[R]\,
        [K_{cached}[I \setminus R], K_t[R]]^\top / \sqrt d\right)
        [V_{cached}[I \setminus R], V_t[R]], \qquad R = M_{t-1}

    Parameters
    ----------
    variant : {"decode", "greedy", "prefill", "prefill_decode"}, default="decode"
        What is cached: decoded tokens; all but those decoded now, those decoded last
        and a window, in a random order that is fixed beforehand; conditions and given
        tokens alone, for good; or these for good, and decoded tokens.
    refresh : int, default=4
        Every so many passes, everything that is not there for good is computed anew.
    window : int, default=4
        Hidden tokens that ``"greedy"`` computes besides, next to those decoded last.
    **others
        As in :class:`MaskedDiffusionSequence`. The greedy variant takes no heed of
        ``order`` and ``threshold``.

    Notes
    -----
    The cache is an approximation: keys and values of all layers but the first depend on
    all tokens, and those that are stored stay what they were. Blocks of the published
    decoder, at whose starts the cache is dropped, and models whose targets are shifted
    are left out: masked diffusion here has neither.

    Card: sequences §2.

    References
    ----------
    dKV-Cache: the cache for diffusion language models, arXiv:2505.15781, 2025.

    Examples
    --------
    >>> model = DelayedCacheDiffusion(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTAC", "ACGGTT"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    >>> model.is_exact
    False
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Masked diffusion that computes only what is hidden or was decoded last. "
        "Tokens settle one pass after they are decoded and are then read from a "
        "cache.",
        order="As masked diffusion.",
        mask="Everybody reads everybody, settled tokens as they were when stored.",
        corruption="As masked diffusion.",
        objective="As masked diffusion; a fitted model may be taken over as it is.",
        decoder="As masked diffusion, over the rows that are not stored; all are "
        "refreshed every few passes.",
        cache="approximate",
        score="bound",
        good_for="Meant for long sequences and conditions, where most rows are known.",
        not_for="Results that must equal those without a cache (only `refresh=1`, or "
        "one layer, is exact).",
        picture={"n_steps": 8, "order": "confidence", "refresh": 4},
    )

    variant: str = "decode"
    refresh: int = 4
    window: int = 4

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **MaskedDiffusionSequence._parameter_rules,
        "variant": Option(*VARIANTS),
        "refresh": Integer(1),
        "window": Integer(0),
    }

    @classmethod
    def from_masked_diffusion(
        cls, fitted: MaskedDiffusionSequence, **params: Any
    ) -> Self:
        """Return a fitted generator that samples from a fitted model with a cache.

        Parameters
        ----------
        fitted : MaskedDiffusionSequence
            Fitted; the two share their network.
        **params
            Parameters of sampling, as ``variant`` and ``refresh``.

        Raises
        ------
        InputTypeError
            For another kind of generator.
        """
        if type(fitted) not in (MaskedDiffusionSequence, cls):
            raise InputTypeError(
                f"fitted is a {type(fitted).__name__}; a MaskedDiffusionSequence is "
                "needed",
                where="from_masked_diffusion",
            )
        fitted._check_is_fitted()
        model = cls(**{**fitted.get_params(deep=False), **params})
        model._check_parameters()
        for name, value in fitted._fitted_attributes().items():
            setattr(model, name, value)
        return model

    @property
    def is_exact(self) -> bool:
        """Whether samples equal those without a cache."""
        return self._decoder(Drawing()).is_exact

    def _decoder(self, drawing: Drawing) -> DelayedDecoder:
        return DelayedDecoder(
            drawing,
            Reveal(self.order, equal_amounts(self.n_steps), self.threshold),
            variant=self.variant,
            refresh=int(self.refresh),
            window=int(self.window),
            n_layers=int(self.n_layers),
        )
