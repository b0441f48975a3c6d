"""Searching the most probable peptides of some spectra.

Axes: ``item`` (a spectrum with one charge), ``beam``, ``token`` (V, the stop behind
them), ``slot`` (T), ``d_model`` (D). Sequences stand C-terminus first.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.decoding.beam_search import beam_search
from sciseq.decoding.ctc import best_alignment, collapse
from sciseq.decoding.ctc_search import prefix_beam_search
from sciseq.decoding.finished_sequences import gather_beams
from sciseq.decoding.kv_cache import CrossAttentionCache, SelfAttentionCache
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.mass_constraint import MassConstraint
from sciseq.sequencing.mass_control import most_probable_paths
from sciseq.sequencing.mass_table import MassTable
from sciseq.sequencing.masses import C13
from sciseq.sequencing.network import PeptideNetwork
from sciseq.sequencing.residues import Vocabulary

__all__ = [
    "CachedDecoder",
    "Found",
    "SearchSettings",
    "first_of_mass",
    "search_paths",
    "search_residues",
]


class SearchSettings(NamedTuple):
    """How to search."""

    beam_size: int
    ppm: float
    isotopes: tuple[int, int]
    most_residues: int
    n_best: int = 1
    n_steps: int = 16  # of the diffusion decoder


class Found(NamedTuple):
    """One peptide of one spectrum, N-terminus first."""

    tokens: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]  # of the tokens
    log_score: float  # of the whole, the end included


class CachedDecoder:
    """The autoregressive decoder as a beam search wants it, reading from caches.

    Parameters
    ----------
    network : PeptideNetwork
        A network with an autoregressive decoder, in evaluation mode.
    peaks : Peaks
        Spectra, one per item.

    Notes
    -----
    A :class:`sciseq.decoding.beam_search.Decoder`. The spectra are encoded once, what
    the layers read of them is projected once, and every token once. At the first step
    all beams are the same, and one of them is computed.
    """

    def __init__(self, network: PeptideNetwork, peaks: Peaks) -> None:
        assert network.autoregressive is not None
        self.network, self.decoder = network, network.autoregressive
        self.peaks = peaks
        memory = network.encode(peaks)
        states = network.slot_states(peaks, memory) if network.reads_slots else None
        read = network.cross_memory(memory, states)
        self.cross = CrossAttentionCache(
            self.decoder.memory(read.tokens), read.is_token
        )
        self.codes = network.codes(network.masses)
        self.sought = network.sought(peaks)

    def start(self, n_items: int, n_beams: int, max_length: int) -> None:
        """Get ready."""
        layers = self.decoder.decoder_layers
        n_heads = layers[0].self_attention.n_heads
        self.own = SelfAttentionCache(
            len(layers),
            n_items,
            n_beams,
            n_heads,
            max_length=max_length + 1,
            width=self.decoder.d_model // n_heads,
            dtype=self.cross.memory(0).keys.dtype,  # another one with autocast
            device=self.codes.device,
        )
        self.prefix = self.network.masses.new_zeros((n_items, n_beams))

    def step(self, tokens: Tensor) -> Tensor:
        """Return the log-probabilities of what comes next (item, beam, token + 1)."""
        _, n_beams, length = tokens.shape
        decoder, peaks = self.decoder, self.peaks
        if length:
            self.prefix = self.prefix + self.network.masses[tokens[..., -1]]
            prefix, before = self.prefix, decoder.embedding[tokens[..., -1]]
        else:
            prefix, before = self.prefix[:, :1], decoder.start(peaks)
        evidence = self.network.evidence(peaks, prefix, self.sought)
        place = torch.full((1,), length, device=tokens.device)
        x = decoder.inputs(peaks, before, prefix, place, self.codes, evidence)
        for number, layer in enumerate(decoder.decoder_layers):
            x = layer.step(x, *self._readers(number))
        scores = decoder.scores(x, self.codes, evidence)
        return scores.float().log_softmax(dim=-1).expand(-1, n_beams, -1)

    def _readers(self, number: int) -> tuple[Callable[..., Tensor], Any]:
        def own(query: Tensor, *key_value: Tensor) -> Tensor:
            n_computed, n_beams = query.shape[1], self.prefix.shape[1]
            found = (one.expand(-1, n_beams, -1, -1) for one in (query, *key_value))
            return self.own.attend(number, *found)[:, :n_computed]

        def memory(query: Tensor) -> Tensor:
            return self.cross.attend(number, query)

        return own, memory

    def reorder(self, parents: Tensor) -> None:
        """Let each beam go on from another one of its item."""
        self.own.reorder(parents)
        self.prefix = gather_beams(self.prefix, parents)

    def keep(self, items: Tensor) -> None:
        """Drop all items but these."""
        self.own.keep(items)
        self.cross.keep(items)
        self.prefix = self.prefix[items]
        self.peaks = Peaks(*(one[items] for one in self.peaks))
        if self.sought is not None:
            self.sought = self.sought.of(items)


def search_residues(
    network: PeptideNetwork, peaks: Peaks, table: MassTable, settings: SearchSettings
) -> list[list[Found]]:
    """Search with the autoregressive decoder, residue by residue.

    Parameters
    ----------
    network : PeptideNetwork
        The network, in evaluation mode.
    peaks : Peaks
        Spectra.
    table : MassTable
        Which masses can be composed.
    settings : SearchSettings
        How to search.

    Returns
    -------
    list of list of Found
        For each spectrum at most ``n_best`` peptides of the right mass, best first.
    """
    stop = len(network.vocabulary)
    constraint = MassConstraint(
        table,
        peaks.precursor_mass.cpu().numpy(),
        stop=stop,
        ppm=settings.ppm,
        isotopes=settings.isotopes,
    )
    decoded = beam_search(
        CachedDecoder(network, peaks),
        n_items=len(peaks.mz),
        beam_size=settings.beam_size,
        max_length=settings.most_residues + 1,
        stop=stop,
        allowed=constraint,
        n_best=settings.n_best,
        device=peaks.mz.device,
    )
    tokens, logs, lengths, totals = (one.cpu().numpy() for one in decoded)
    return [
        [
            Found(
                tokens[item, rank, : lengths[item, rank]][::-1].copy(),
                np.exp(logs[item, rank, : lengths[item, rank]][::-1].astype(float)),
                float(totals[item, rank]),
            )
            for rank in range(totals.shape[1])
            if np.isfinite(totals[item, rank]) and lengths[item, rank]
        ]
        for item in range(len(tokens))
    ]


def search_paths(
    network: PeptideNetwork, peaks: Peaks, settings: SearchSettings
) -> list[list[Found]]:
    """Search with the nonautoregressive decoder: all residues at once.

    The best sequences by CTC are taken where their mass is right; elsewhere the most
    probable path of the right mass is looked for.

    Parameters
    ----------
    network, peaks, settings
        As in :func:`search_residues`.

    Returns
    -------
    list of list of Found
        For each spectrum at most one peptide of the right mass.
    """
    memory = network.encode(peaks)
    scores = network.symbol_scores(network.slot_states(peaks, memory))
    logs = scores.double().log_softmax(dim=-1).cpu()
    blank, beams = logs.shape[-1] - 1, settings.beam_size
    sequences = prefix_beam_search(logs, blank=blank, beam_size=beams, n_best=beams)
    masses = peaks.precursor_mass.cpu().numpy()
    chosen: list[tuple[Tensor, float] | None] = []
    for item, mass in enumerate(masses):
        options = zip(*(one[item] for one in sequences), strict=True)
        chosen.append(first_of_mass(options, mass, network.vocabulary, settings))
    missing = [item for item, one in enumerate(chosen) if one is None]
    if missing:
        paths = most_probable_paths(
            logs[missing].numpy(),
            masses[missing],
            network.vocabulary.masses,
            blank=blank,
            is_terminal=network.vocabulary.is_terminal,
            ppm=settings.ppm,
            isotopes=settings.isotopes,
        )
        tokens, lengths = collapse(torch.from_numpy(paths.paths), blank)
        for place, item in enumerate(missing):
            if np.isfinite(paths.scores[place]) and lengths[place]:
                found = tokens[place, : lengths[place]], float(paths.scores[place])
                chosen[item] = found
    return [_found(logs[item], one, blank) for item, one in enumerate(chosen)]


def first_of_mass(
    options: Iterable[Any],
    mass: float,
    vocabulary: Vocabulary,
    settings: SearchSettings,
) -> tuple[Tensor, float] | None:
    """Return the first sequence of the right mass, with its log-probability.

    Parameters
    ----------
    options : iterable of (tokens, length, log-probability)
        Sequences, C-terminus first.
    mass : float
        Measured neutral mass in Da.
    vocabulary : Vocabulary
        What the tokens mean.
    settings : SearchSettings
        Tolerances.
    """
    low, high = settings.isotopes
    for tokens, length, total in options:
        order = tokens[:length].numpy()
        terminal = vocabulary.is_terminal[order]
        if not length or terminal[:-1].any() or terminal.all():
            continue
        own = vocabulary.mass(order[::-1])
        errors = np.abs(mass - np.arange(low, high + 1) * C13 - own)
        if errors.min() <= mass * settings.ppm * 1e-6:
            return tokens[:length], float(total)
    return None


def _found(
    logs: Tensor, chosen: tuple[Tensor, float] | None, blank: int
) -> list[Found]:
    """Peptide with the probability of each residue in its best slot."""
    if chosen is None:
        return []
    tokens, log_score = chosen
    length = torch.tensor([len(tokens)])
    paths, _ = best_alignment(logs[None], tokens[None], length, blank=blank)
    path = paths[0]
    probabilities, number = np.zeros(len(tokens)), -1
    for slot, symbol in enumerate(path.tolist()):
        if symbol == blank:
            continue
        if slot == 0 or path[slot - 1] != symbol:
            number += 1
        own = float(logs[slot, symbol].exp())
        probabilities[number] = max(probabilities[number], own)
    return [Found(tokens.numpy()[::-1].copy(), probabilities[::-1].copy(), log_score)]
