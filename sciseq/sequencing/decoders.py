"""The two peptide decoders, and the codes of residues that both score with.

Axes: ``batch`` (B), ``place`` (L, tokens so far; sequences stand C-terminus first),
``token`` (V of the vocabulary; the codes of stop and blank stand behind), ``slot`` (T,
of the nonautoregressive decoder), ``d_model`` (D).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from sciseq.nn import Dropout, FeedForward, sinusoidal_positions
from sciseq.nn.decoder import DecoderLayer, KeysAndValues
from sciseq.nn.float_encoding import encode_floats
from sciseq.sequencing.encoder import Memory, PrecursorCode
from sciseq.sequencing.ion_evidence import Peaks

__all__ = ["AutoregressiveDecoder", "NonautoregressiveDecoder", "ResidueCodes"]

_SCORER_WIDTH = 32
_N_COINS = 16


class ResidueCodes(nn.Module):
    r"""Codes of all tokens, made of their masses and of learned vectors.

    .. math:: g(a) = \mathrm{FFN}([code(m_a), e_a]), \quad s_a = \langle h, g(a) \rangle

    Parameters
    ----------
    n_tokens : int
        Tokens V of the vocabulary. Two more codes stand behind them: what ends a
        sequence (stop), and the nonautoregressive decoder's blank.
    d_model : int
        Width of a code.

    Notes
    -----
    Card: peptide §6. A token that is added to a vocabulary starts with a code that is
    right about its mass.
    """

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(n_tokens + 2, d_model))
        self.mix = nn.Linear(2 * d_model, d_model)
        self.feed_forward = FeedForward(d_model, 2 * d_model, dropout=0.0)
        self.norm = nn.LayerNorm(d_model)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors."""
        nn.init.normal_(self.vectors, std=1.0, generator=generator)

    def forward(self, masses: Tensor) -> Tensor:
        """Return the codes (token + 2, d_model) from masses (token,) in float64."""
        d_model = self.vectors.shape[1]
        # Stop and blank weigh nothing.
        all_masses = nn.functional.pad(masses, (0, 2))
        mass_codes = encode_floats(all_masses, d_model, dtype=self.vectors.dtype)
        x = self.mix(torch.cat([mass_codes, self.vectors], dim=1))
        codes: Tensor = self.norm(x + self.feed_forward(x))
        return codes


class AutoregressiveDecoder(nn.Module):
    r"""One residue after the other, told the masses before and behind it.

    .. math::

        x_i = [e_{a_i}, code(p_i), code(M - p_i)] + \pi_i + U \sum_a
            \phi(W f_{ia}) \odot g(a), \qquad
        s_{ia} = \langle h_i, g(a) \rangle / \sqrt{D} + r(f_{ia})

    with p_i the residue masses so far and f the evidence of the candidates.

    Parameters
    ----------
    d_model, d_ff, n_layers, n_heads, dropout
        As in :class:`sciseq.nn.decoder.DecoderLayer`; ``d_model`` a multiple of 8.
    n_tokens : int
        Tokens V of the vocabulary.
    n_places : int
        Longest sequence, the end included.
    n_features : int, default 0
        Numbers in f of each candidate; 0 for no f.

    Notes
    -----
    Card: peptide §6 (ContraNovo). The evidence f is an addition.
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
        n_features: int = 0,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.n_places = n_places
        self.embedding = nn.Parameter(torch.empty(n_tokens, d_model // 2))
        self.precursor = PrecursorCode(d_model // 2)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, n_heads, d_ff, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.features = self.found = self.scorer = None
        if n_features:
            self.features = nn.Linear(n_features, d_model)
            self.found = nn.Linear(d_model, d_model, bias=False)
            self.scorer = FeedForward(n_features, _SCORER_WIDTH, 0.0)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of the residues."""
        nn.init.normal_(self.embedding, std=0.02, generator=generator)

    def inputs(
        self,
        peaks: Peaks,
        before: Tensor,
        prefix: Tensor,
        places: Tensor,
        codes: Tensor,
        evidence: Tensor | None,
    ) -> Tensor:
        """Make what enters the layers.

        Parameters
        ----------
        peaks : Peaks
            Spectra.
        before : Tensor, shape (batch, place, d_model / 2)
            Embedding of the residue before each place, or what :meth:`start` gives.
        prefix : Tensor of float64, shape (batch, place)
            Residue masses before each place.
        places : Tensor of int64, shape (place,)
            Numbers of the places.
        codes : Tensor, shape (token + 2, d_model)
            Codes of the residues.
        evidence : Tensor, shape (batch, place, token, n_features), optional
            Evidence of the candidates.

        Returns
        -------
        Tensor, shape (batch, place, d_model)
            Tokens.
        """
        quarter, dtype = self.d_model // 4, before.dtype
        suffix = peaks.precursor_mass.unsqueeze(1) - prefix
        suffix = suffix.where(places > 0, 0.0)  # at the start neither is told
        masses = [encode_floats(one, quarter, dtype=dtype) for one in (prefix, suffix)]
        x = torch.cat([before, *masses], dim=-1)
        x = x + sinusoidal_positions(self.n_places, self.d_model).to(x)[places]
        if self.features is not None and self.found is not None:
            assert evidence is not None
            weights = nn.functional.relu(self.features(evidence))
            n_tokens = evidence.shape[2]
            x = x + self.found((weights * codes[:n_tokens]).sum(dim=2))
        return x

    def start(self, peaks: Peaks) -> Tensor:
        """Make what stands before the first place (batch, 1, d_model / 2)."""
        code: Tensor = self.precursor(peaks)
        return code.unsqueeze(1)

    def scores(self, hidden: Tensor, codes: Tensor, evidence: Tensor | None) -> Tensor:
        """Score what may come next (batch, place, token + 1); the last one is stop."""
        logits: Tensor = self.norm(hidden) @ codes[:-1].T / math.sqrt(self.d_model)
        if self.scorer is None:
            return logits
        assert evidence is not None
        added = self.scorer(evidence).mean(dim=-1)
        return logits + nn.functional.pad(added, (0, 1))

    def memory(self, tokens: Tensor) -> list[KeysAndValues]:
        """Project what the layers read, once for a whole search."""
        return [one.cross_attention.project(tokens) for one in self.decoder_layers]

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers, first to last."""
        return cast(list[DecoderLayer], list(self.layers))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Run all places of given sequences at once (batch, place, d_model)."""
        n_places = x.shape[1]
        causal = torch.ones(n_places, n_places, dtype=torch.bool, device=x.device)
        mask = memory.is_token[:, None, None, :]
        for layer, read in zip(self.layers, self.memory(memory.tokens), strict=True):
            x = layer(x, read, causal.tril(), mask)
        return x


class NonautoregressiveDecoder(nn.Module):
    r"""All residues at once, as a path of symbols that CTC collapses.

    .. math::

        x_t = p + \pi_t + e_{u_t} + W q_t, \qquad
        s_{ta} = \langle h_t, g(a) \rangle / \sqrt{D}

    with u a guess of the path, where there is glancing, and q the probabilities of the
    residues in each place, where they are told.

    Parameters
    ----------
    d_model, d_ff, n_layers, n_heads, dropout
        As in :class:`sciseq.nn.decoder.DecoderLayer`.
    n_slots : int
        Symbols T of a path.
    n_guessed : int, default 0
        Symbols that a guess is made of, with the blank; 0 without glancing.
    n_told : int, default 0
        Probabilities that are told of each place.

    Attributes
    ----------
    unknown : int
        Stands in a guess where nothing is guessed.

    Notes
    -----
    Card: peptide §7 (PrimeNovo) and §9 (RefineNovo). There is no causal mask.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
        *,
        n_slots: int,
        n_guessed: int = 0,
        n_told: int = 0,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.n_slots = n_slots
        self.precursor = PrecursorCode(d_model)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, n_heads, d_ff, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.told = nn.Linear(n_told, d_model, bias=False) if n_told else None
        self.unknown = n_guessed
        self.guesses: nn.Parameter | None = None
        if n_guessed:
            self.guesses = nn.Parameter(torch.empty(n_guessed + 1, d_model))
            # Hints are drawn from dropouts: the training loop gives those a generator,
            # and knows how to draw for a batch that is computed in parts.
            self.coins = Dropout(0.5)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of what is guessed and told, as large as positions are."""
        if self.guesses is not None:
            nn.init.normal_(self.guesses, std=1.0, generator=generator)
        if self.told is not None:
            nn.init.normal_(self.told.weight, std=1.0, generator=generator)

    def draws(self, n_batch: int) -> Tensor:
        """Return numbers (batch, slot), uniform in [0, 1) when training, else near 1.

        Only with glancing.
        """
        assert self.guesses is not None
        ones = self.guesses.new_ones((n_batch, self.n_slots, _N_COINS))
        values = 0.5 ** torch.arange(1, _N_COINS + 1, device=ones.device)
        numbers: Tensor = ((self.coins(ones) > 0) * values).sum(dim=-1)
        return numbers

    def forward(
        self,
        peaks: Peaks,
        memory: Memory,
        guess: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Find the states of all slots.

        Parameters
        ----------
        peaks : Peaks
            Spectra.
        memory : Memory
            Encoded spectra.
        guess : Tensor of int64, shape (batch, slot), optional
            Symbols guessed before; by default all are unknown. Only with glancing.
        places : Tensor, shape (batch, slot, n_told), optional
            What is told of each place.

        Returns
        -------
        Tensor, shape (batch, slot, d_model)
            States, normalised.
        """
        positions = sinusoidal_positions(self.n_slots, self.d_model)
        x = self.precursor(peaks).unsqueeze(1) + positions.to(memory.tokens)
        if self.guesses is not None:
            x = x + self.guesses[self.unknown if guess is None else guess]
        if self.told is not None:
            assert places is not None
            x = x + self.told(places)
        mask = memory.is_token[:, None, None, :]
        for layer in cast(list[DecoderLayer], list(self.layers)):
            read = layer.cross_attention.project(memory.tokens)
            x = layer(x, read, None, mask)
        states: Tensor = self.norm(x)
        return states

    def scores(self, states: Tensor, codes: Tensor) -> Tensor:
        """Score the symbols of every slot (batch, slot, token + 1), blank last."""
        keep = torch.cat([codes[:-2], codes[-1:]])
        return states @ keep.T / math.sqrt(self.d_model)
