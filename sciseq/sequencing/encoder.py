"""The spectrum encoder, shared by all decoders.

Axes: ``batch`` (B), ``peak`` (P), ``token`` (K = P + 1: the precursor, then the peaks),
``d_model`` (D).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciseq.nn import TransformerEncoder
from sciseq.nn.float_encoding import encode_floats
from sciseq.sequencing.ion_evidence import Peaks, peak_evidence

__all__ = ["MOST_CHARGES", "Memory", "PrecursorCode", "SpectrumEncoder"]

MOST_CHARGES = 10


class Memory(NamedTuple):
    """What decoders read of a spectrum."""

    tokens: Tensor  # (batch, token, d_model)
    is_token: Tensor  # (batch, token)


class PrecursorCode(nn.Module):
    r"""Code of the precursor: its mass and a learned vector for its charge.

    .. math:: p = code(M) + e_z

    Parameters
    ----------
    d_model : int
        Width of the code.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.charges = nn.Parameter(torch.empty(MOST_CHARGES, d_model))

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of the charges."""
        nn.init.normal_(self.charges, std=0.02, generator=generator)

    def forward(self, peaks: Peaks) -> Tensor:
        """Return the codes (batch, d_model)."""
        n_charges, d_model = self.charges.shape
        code = encode_floats(peaks.precursor_mass, d_model, dtype=self.charges.dtype)
        return code + self.charges[peaks.charge.clamp(1, n_charges) - 1]


class SpectrumEncoder(nn.Module):
    r"""Transformer over the peaks of a spectrum and one token for its precursor.

    .. math:: x_p = [code(mz_p), code(i_p)]\, W + f_p V, \qquad E = \mathrm{LN}(T(x))

    Parameters
    ----------
    d_model, d_ff, n_layers, n_heads, dropout
        As in :class:`sciseq.nn.TransformerEncoder`.
    n_residues : int
        Residues of the vocabulary, for the evidence; 0 leaves it out (V = 0).

    Notes
    -----
    Card: peptide §3 and §4, with the peak code of Casanovo 5: wavelengths of 0.001 to
    10 000 Da for m/z, of 1e-6 to 1 for intensities. Pre-norm, where the published
    encoders are post-norm. The evidence is an addition.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
        n_residues: int = 0,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.precursor = PrecursorCode(d_model)
        self.peaks = nn.Linear(2 * d_model, d_model, bias=False)
        self.evidence = (
            nn.Linear(2 + 2 * n_residues, d_model, bias=False) if n_residues else None
        )
        self.layers = TransformerEncoder(
            n_layers, d_model, n_heads, d_ff, dropout, pre_norm=True
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, peaks: Peaks, residue_masses: Tensor) -> Memory:
        """Encode spectra.

        Parameters
        ----------
        peaks : Peaks
            Spectra.
        residue_masses : Tensor of float64, shape (n_residues,)
            Masses for the evidence, in Da.
        """
        dtype, is_peak = self.peaks.weight.dtype, peaks.is_peak
        mz = peaks.mz.where(is_peak, 0.0)
        intensity = peaks.intensity.double()
        codes = [
            encode_floats(mz, self.d_model, dtype=dtype),
            encode_floats(intensity, self.d_model, shortest=1e-6, longest=1.0,
                          dtype=dtype),
        ]  # fmt: skip
        x = self.peaks(torch.cat(codes, dim=-1))
        if self.evidence is not None:
            x = x + self.evidence(peak_evidence(peaks, residue_masses).to(dtype))
        x = torch.cat([self.precursor(peaks).unsqueeze(1), x], dim=1)
        is_token = nn.functional.pad(is_peak, (1, 0), value=True)
        mask = is_token[:, None, None, :]  # (batch, head, query, key)
        return Memory(self.norm(self.layers(x, mask)), is_token)
