"""The decoder of conditional masked diffusion: hidden residues from shown ones.

Axes: ``batch`` (B), ``place`` (L, of a sequence with its ends; C-terminus first),
``token`` (V of the vocabulary; the codes of stop and blank stand behind), ``d_model``
(D).
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from sciseq.nn import FeedForward, sinusoidal_positions
from sciseq.nn.decoder import DecoderLayer, KeysAndValues
from sciseq.nn.float_encoding import encode_floats
from sciseq.sequencing.encoder import PrecursorCode
from sciseq.sequencing.ion_evidence import Peaks

__all__ = ["DiffusionDecoder", "FirstHidden", "SpectrumReading"]

_SCORER_WIDTH = 32


class SpectrumReading(NamedTuple):
    """What the decoder reads of some spectra, made once for all passes.

    Parameters
    ----------
    peaks : Peaks
        Spectra.
    memory : list of KeysAndValues
        Encoded spectra, projected for each layer.
    is_token : Tensor of bool, shape (batch, token of the encoder)
        Where there is a peak, or the precursor.
    codes : Tensor, shape (token + 2, d_model)
        Codes of the residues.
    told : Tensor, shape (batch, place, n_told), optional
        What is told of each place.
    is_place : Tensor of bool, shape (batch, place)
        Places that a peptide of this mass may reach. No other one is read.
    """

    peaks: Peaks
    memory: list[KeysAndValues]
    is_token: Tensor
    codes: Tensor
    told: Tensor | None
    is_place: Tensor


class FirstHidden(NamedTuple):
    """The first hidden place of each sequence: all before it is known, so its mass is.

    Parameters
    ----------
    place : Tensor of int64, shape (batch,)
        Which place.
    prefix : Tensor of float64, shape (batch, 1)
        Residue masses before it, in Da.
    evidence : Tensor, shape (batch, 1, token, feature), optional
        Evidence of the candidates there.
    """

    place: Tensor
    prefix: Tensor
    evidence: Tensor | None


class DiffusionDecoder(nn.Module):
    r"""All hidden places at once, told what is shown.

    .. math::

        x_i = p + \pi_i + e_{u_i} + W q_i + [i = f] \Bigl(W_m [code(p_f), code(M - p_f)]
        + U \sum_a \phi(W_v f_{a}) \odot g(a)\Bigr), \qquad
        s_{ia} = \langle h_i, g(a) \rangle / \sqrt{D} + [i = f]\, r(f_{a})

    with u a token, the end, or the mask; q the probabilities of the residues in each
    place, where they are told; i = f the first hidden place, :math:`p_f` the residue
    masses before it and :math:`f_a` the evidence of the candidates there.

    Parameters
    ----------
    d_model, d_ff, n_layers, n_heads, dropout
        As in :class:`sciseq.nn.decoder.DecoderLayer`; ``d_model`` a multiple of 8.
    n_tokens : int
        Tokens V of the vocabulary.
    n_places : int
        Longest sequence, with one end.
    n_told : int, default 0
        Probabilities that are told of each place.
    n_features : int, default 0
        Numbers in f of each candidate; 0 for no f.

    Attributes
    ----------
    stop, mask : int
        What stands for an end, and for what is hidden.

    Notes
    -----
    Card: sequences §16 (LaViDa), with attention to the spectrum in place of a prefix of
    the sequence: the spectrum never reads the peptide, so that what is stored of it is
    exact. What is told of the first hidden place is an addition.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
        *,
        n_tokens: int,
        n_places: int,
        n_told: int = 0,
        n_features: int = 0,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.n_places = n_places
        self.stop, self.mask = n_tokens, n_tokens + 1
        self.symbols = nn.Parameter(torch.empty(n_tokens + 2, d_model))
        self.precursor = PrecursorCode(d_model)
        self.masses = nn.Linear(d_model, d_model, bias=False)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, n_heads, d_ff, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.told = nn.Linear(n_told, d_model, bias=False) if n_told else None
        self.features = self.found = self.scorer = None
        if n_features:
            self.features = nn.Linear(n_features, d_model)
            self.found = nn.Linear(d_model, d_model, bias=False)
            self.scorer = FeedForward(n_features, _SCORER_WIDTH, 0.0)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of what is shown and told, as large as positions are."""
        nn.init.normal_(self.symbols, std=1.0, generator=generator)
        if self.told is not None:
            nn.init.normal_(self.told.weight, std=1.0, generator=generator)

    def memory(self, tokens: Tensor) -> list[KeysAndValues]:
        """Project encoded spectra (batch, token, d_model), once for all passes."""
        layers = cast(list[DecoderLayer], list(self.layers))
        return [one.cross_attention.project(tokens) for one in layers]

    def forward(
        self, reading: SpectrumReading, shown: Tensor, first: FirstHidden
    ) -> Tensor:
        """Score what may be hidden.

        Parameters
        ----------
        reading : SpectrumReading
            Spectra.
        shown : Tensor of int64, shape (batch, place)
            Tokens, ends and masks.
        first : FirstHidden
            The first hidden place of each.

        Returns
        -------
        Tensor, shape (batch, place, token + 1)
            Scores; the last one is that of the end.
        """
        places = torch.arange(shown.shape[1], device=shown.device)
        is_first = (places == first.place.unsqueeze(1)).unsqueeze(2)
        x = self._inputs(reading, shown) + is_first * self._told_first(reading, first)
        own = reading.is_place[:, None, None, :]
        others = reading.is_token[:, None, None, :]
        for layer, read in zip(self.layers, reading.memory, strict=True):
            x = layer(x, read, own, others)
        codes = reading.codes[:-1]
        scores: Tensor = self.norm(x) @ codes.T / math.sqrt(self.d_model)
        if self.scorer is None:
            return scores
        added = self.scorer(first.evidence).mean(dim=-1)  # (batch, 1, token)
        added = nn.functional.pad(added, (0, 1))
        total: Tensor = scores + is_first * added
        return total

    def _inputs(self, reading: SpectrumReading, shown: Tensor) -> Tensor:
        positions = sinusoidal_positions(self.n_places, self.d_model).to(self.symbols)
        x: Tensor = self.precursor(reading.peaks).unsqueeze(1)
        x = x + positions[: shown.shape[1]]
        x = x + self.symbols[shown]
        if self.told is not None:
            x = x + self.told(reading.told)
        return x

    def _told_first(self, reading: SpectrumReading, first: FirstHidden) -> Tensor:
        """Return what the first hidden place is told (batch, 1, d_model)."""
        suffix = reading.peaks.precursor_mass.unsqueeze(1) - first.prefix
        half, dtype = self.d_model // 2, self.symbols.dtype
        codes = [encode_floats(m, half, dtype=dtype) for m in (first.prefix, suffix)]
        told: Tensor = self.masses(torch.cat(codes, dim=-1))
        if self.features is not None and self.found is not None:
            assert first.evidence is not None
            weights = nn.functional.relu(self.features(first.evidence))
            n_tokens = weights.shape[2]
            told = told + self.found((weights * reading.codes[:n_tokens]).sum(dim=2))
        return told
