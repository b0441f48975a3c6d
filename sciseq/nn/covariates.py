"""Tokens of what is known beside the variates.

Axes: ``batch`` (B), ``horizon`` (H), ``known`` (K channels known ahead), ``static``
(S values of a series), ``token``, ``d_model`` (D).
"""

import torch
from torch import Tensor, nn

from sciseq.errors import InputError

__all__ = ["CovariateTokens"]


class CovariateTokens(nn.Module):
    """Append tokens of known-ahead channels and of static values to other tokens.

    Each channel known over the horizon becomes one token by a linear map that all of
    them share; the static values of a series together become one token by another.

    Parameters
    ----------
    horizon : int
        Number of steps H over which channels are known.
    n_known : int
        Number of known-ahead channels K.
    n_static : int
        Number of static values S.
    d_model : int
        Width D of a token.

    Notes
    -----
    Inverted embedding (card: forecasting §0.3) of covariates. With neither kind,
    nothing is built and tokens pass through.

    Examples
    --------
    >>> import torch
    >>> append = CovariateTokens(horizon=6, n_known=2, n_static=3, d_model=4)
    >>> tokens = torch.zeros(5, 7, 4)
    >>> append(tokens, known=torch.zeros(5, 6, 2), static=torch.zeros(5, 3)).shape
    torch.Size([5, 10, 4])
    """

    def __init__(self, horizon: int, n_known: int, n_static: int, d_model: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.n_known = n_known
        self.n_static = n_static
        if n_known:
            self.known = nn.Linear(horizon, d_model)
        if n_static:
            self.static = nn.Linear(n_static, d_model)

    @property
    def n_tokens(self) -> int:
        """Number of tokens that are appended."""
        return self.n_known + bool(self.n_static)

    def forward(
        self, tokens: Tensor, known: Tensor | None = None, static: Tensor | None = None
    ) -> Tensor:
        """Append the tokens of covariates after others.

        Parameters
        ----------
        tokens : Tensor, shape (batch, n_tokens, d_model)
            Tokens of variates and marks.
        known : Tensor, shape (batch, horizon, n_known), optional
            Channels known over the horizon; needed exactly when ``n_known > 0``.
        static : Tensor, shape (batch, n_static), optional
            Static values; needed exactly when ``n_static > 0``.

        Returns
        -------
        Tensor, shape (batch, n_tokens + n_known + (n_static > 0), d_model)
            All tokens; those of the static values last.

        Raises
        ------
        InputError
            When a block is missing, not expected, or of another shape.
        """
        n_batch = len(tokens)
        _check("known", known, (n_batch, self.horizon, self.n_known), self.n_known)
        _check("static", static, (n_batch, self.n_static), self.n_static)
        parts = [tokens]
        if known is not None:
            parts.append(self.known(known.to(self.known.weight.dtype).mT))
        if static is not None:
            parts.append(self.static(static.to(self.static.weight.dtype)).unsqueeze(1))
        return tokens if len(parts) == 1 else torch.cat(parts, dim=1)


def _check(
    name: str, block: Tensor | None, shape: tuple[int, ...], n_channels: int
) -> None:
    if block is None and n_channels == 0:
        return
    found = "missing" if block is None else f"of shape {tuple(block.shape)}"
    if n_channels == 0:
        raise InputError(
            f"{name} is {found}, but the network was built without such channels",
            where=name,
            hint=f"Leave {name} out, or build the network with n_{name}.",
        )
    if block is None or block.shape != shape:
        raise InputError(f"{name} is {found}, must have shape {shape}", where=name)
