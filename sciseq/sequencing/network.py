"""The hybrid network: one spectrum encoder, two peptide decoders, or another one.

Axes: ``batch`` (B), ``place`` (L), ``token`` (V), ``slot`` (T), ``d_model`` (D).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.nn import sinusoidal_positions
from sciseq.sequencing.decoders import (
    AutoregressiveDecoder,
    NonautoregressiveDecoder,
    ResidueCodes,
)
from sciseq.sequencing.diffusion_decoder import DiffusionDecoder
from sciseq.sequencing.encoder import Memory, SpectrumEncoder
from sciseq.sequencing.ion_evidence import (
    N_FEATURES,
    Candidates,
    Peaks,
    Windows,
    candidate_evidence,
    candidates_of,
    windows_of,
)
from sciseq.sequencing.path_evidence import (
    N_PATH_FEATURES,
    Onward,
    onward_evidence,
    onward_of,
)
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectrum_graph import Steps, place_probabilities, steps_of

__all__ = ["PeptideNetwork", "Sought", "Targets", "grown_weights"]

_N_PASSES = 3  # of the nonautoregressive decoder, with glancing


class Targets(NamedTuple):
    """True peptides of a batch, C-terminus first."""

    tokens: Tensor  # (batch, place), int64; what is behind the end is arbitrary
    lengths: Tensor  # (batch,), int64, without the end


class Sought(NamedTuple):
    """What evidence of candidates is looked up in, made once for each spectrum."""

    windows: Windows
    onward: Onward | None

    def of(self, items: Tensor) -> "Sought":
        """Return those of some spectra."""
        windows = Windows(*(one[items] for one in self.windows))
        if self.onward is None:
            return Sought(windows, None)
        return Sought(windows, Onward(*(one[items] for one in self.onward)))


class PeptideNetwork(nn.Module):
    """Spectrum encoder with an autoregressive and a nonautoregressive decoder.

    Parameters
    ----------
    vocabulary : Vocabulary
        Tokens and their masses.
    d_model : int, default 128
        Width of a token; a multiple of 8.
    d_ff : int, default 512
        Inner width of the feed-forward networks.
    n_layers : int, default 3
        Layers of the encoder, and of each decoder.
    n_heads : int, default 4
        Attention heads.
    dropout : float, default 0.0
        Probability of every dropout.
    decoder : {"hybrid", "autoregressive", "nonautoregressive", "diffusion"}, \
default "hybrid"
        Which decoders are there: the first two, one of them, or that of diffusion.
    evidence : bool, default True
        Whether the network is told where ions of the candidates would be.
    n_slots : int, default 40
        Symbols of the nonautoregressive decoder.
    most_residues : int, default 40
        Longest peptide.
    gradient_block : bool, default True
        Whether the autoregressive decoder reads the other one's states without
        training it.
    shared_encoder : bool, default True
        Whether both decoders read one encoder. Else the nonautoregressive one of a
        hybrid has an encoder of its own, of the same size.
    glancing : bool, default False
        Whether the nonautoregressive decoder works in three passes, told in each what
        it found in the one before.
    spectrum_graph : bool, default False
        Whether that decoder, or that of diffusion, is told which residues paths through
        the peaks have in each place.
    path_evidence : bool, default False
        Whether the autoregressive decoder, or that of diffusion, is told for every
        candidate how paths through the peaks lead on to the end; only with
        ``evidence``.

    Attributes
    ----------
    reads_slots : bool
        Whether the autoregressive decoder reads the states of the other one: False in
        joint training, True in cross-decoder training and afterwards.

    Notes
    -----
    Card: peptide §10 (CrossNovo, arXiv:2510.08169); glancing: §9 (RefineNovo).
    """

    masses: Tensor
    residues: Tensor
    sums: Tensor
    place: Tensor
    is_terminal: Tensor
    place_of_two: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        d_model: int = 128,
        d_ff: int = 512,
        n_layers: int = 3,
        n_heads: int = 4,
        dropout: float = 0.0,
        *,
        decoder: str = "hybrid",
        evidence: bool = True,
        n_slots: int = 40,
        most_residues: int = 40,
        gradient_block: bool = True,
        shared_encoder: bool = True,
        glancing: bool = False,
        spectrum_graph: bool = False,
        path_evidence: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.gradient_block = gradient_block
        self.has_evidence = evidence
        self.has_graph = spectrum_graph and decoder != "autoregressive"
        self.has_paths = path_evidence and evidence and decoder != "nonautoregressive"
        self.reads_slots = False
        n_tokens, n_residues = len(vocabulary), int((~vocabulary.is_terminal).sum())
        sizes = (d_model, d_ff, n_layers, n_heads, dropout)
        # The masses, known where the network is, but no weights of it.
        for name, one in self._tables().items():
            empty = torch.empty(one.shape, dtype=one.dtype)
            self.register_buffer(name, empty, persistent=False)
        n_told = n_residues if evidence else 0
        n_features = N_FEATURES + (N_PATH_FEATURES if self.has_paths else 0)
        # What stands first is drawn last: the other weights do not depend on it.
        has_two = decoder == "hybrid" and not shared_encoder
        self.slot_encoder = SpectrumEncoder(*sizes, n_told) if has_two else None
        self.encoder = SpectrumEncoder(*sizes, n_told)
        self.codes = ResidueCodes(n_tokens, d_model)
        self.autoregressive = (
            AutoregressiveDecoder(
                *sizes,
                n_tokens=n_tokens,
                n_places=most_residues + 2,  # an N-terminal token, and the end
                n_features=n_features if evidence else 0,
            )
            if decoder in ("hybrid", "autoregressive")
            else None
        )
        self.nonautoregressive = (
            NonautoregressiveDecoder(
                *sizes,
                n_slots=n_slots,
                n_guessed=n_tokens + 1 if glancing else 0,
                n_told=n_residues + 1 if spectrum_graph else 0,
            )
            if decoder in ("hybrid", "nonautoregressive")
            else None
        )
        self.diffusion = (
            DiffusionDecoder(
                *sizes,
                n_tokens=n_tokens,
                n_places=most_residues + 1,  # and the end
                n_told=n_residues + 1 if spectrum_graph else 0,
                n_features=n_features if evidence else 0,
            )
            if decoder == "diffusion"
            else None
        )

    def _tables(self) -> dict[str, Tensor]:
        with torch.device("cpu"):
            masses = torch.from_numpy(np.array(self.vocabulary.masses))
            is_terminal = torch.from_numpy(np.array(self.vocabulary.is_terminal))
            _, sums, place = candidates_of(masses)
            residues = masses[~is_terminal]
            tables = {"masses": masses, "residues": residues}
            tables |= {"sums": sums, "place": place}
            if self.has_paths:
                tables["is_terminal"] = is_terminal
                tables["place_of_two"] = place[:, ~is_terminal]
            if self.has_graph or self.has_paths:
                steps = steps_of(residues)._asdict()
                tables |= {f"graph_{name}": one for name, one in steps.items()}
        return tables

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Set the masses; everything else sets itself."""
        del generator
        for name, one in self._tables().items():
            getattr(self, name).copy_(one)

    def begin_cross_training(self) -> None:
        """Freeze all but the autoregressive decoder, which reads both from now on."""
        assert self.autoregressive is not None
        self.requires_grad_(False)
        self.autoregressive.requires_grad_(True)
        self.reads_slots = True

    # ------------------------------------------------------------------ reading

    def encode(self, peaks: Peaks) -> Memory:
        """Encode spectra."""
        memory: Memory = self.encoder(peaks, self.residues)
        return memory

    def slot_inputs(self, peaks: Peaks, memory: Memory) -> tuple[Memory, Tensor | None]:
        """Return what the nonautoregressive decoder reads, and is told of each place.

        With one encoder it reads ``memory``, what :meth:`encode` gave.
        """
        assert self.nonautoregressive is not None
        if self.slot_encoder is not None:
            memory = self.slot_encoder(peaks, self.residues)
        return memory, self.told_places(peaks, self.nonautoregressive.n_slots)

    @torch.no_grad()
    def told_places(self, peaks: Peaks, n_places: int) -> Tensor | None:
        """Return what paths through the peaks tell of each place, if it is told."""
        if not self.has_graph:
            return None
        return place_probabilities(peaks, self._steps(), n_places)

    def _steps(self) -> Steps:
        return Steps(*(getattr(self, f"graph_{one}") for one in Steps._fields))

    def slot_states(self, peaks: Peaks, memory: Memory) -> Tensor:
        """States of the nonautoregressive decoder (batch, slot, d_model).

        With glancing those of its last pass. Truths have no part in them.
        """
        decoder = self.nonautoregressive
        assert decoder is not None
        (memory, places), guess = self.slot_inputs(peaks, memory), None
        if decoder.guesses is not None:
            with torch.no_grad():
                for _ in range(_N_PASSES - 1):
                    found = decoder(peaks, memory, guess, places)
                    guess = self.symbol_scores(found).argmax(dim=-1)
        states: Tensor = decoder(peaks, memory, guess, places)
        return states

    def cross_memory(self, memory: Memory, states: Tensor | None) -> Memory:
        r"""Join what the autoregressive decoder reads.

        .. math:: [GB(V) + \pi_{1..T};\; E + \pi_{T+1..T+k}]

        GB blocks the gradient. Without ``states`` it is E alone, at the same places.
        """
        n_slots = 0
        if self.nonautoregressive is not None:
            n_slots = self.nonautoregressive.n_slots
        tokens, is_token = memory
        n_places = n_slots + tokens.shape[1]
        positions = sinusoidal_positions(n_places, tokens.shape[2]).to(tokens)
        tokens = tokens + positions[n_slots:]
        if states is None:
            return Memory(tokens, is_token)
        if self.gradient_block:
            states = states.detach()
        tokens = torch.cat([states + positions[:n_slots], tokens], dim=1)
        return Memory(tokens, nn.functional.pad(is_token, (n_slots, 0), value=True))

    # ------------------------------------------------------------------ scoring

    @torch.no_grad()
    def sought(self, peaks: Peaks) -> Sought | None:
        """Prepare spectra for :meth:`evidence`, once for many calls."""
        if not self.has_evidence:
            return None
        onward = None
        if self.has_paths:
            terminal = self.masses[self.is_terminal]
            onward = onward_of(peaks, self._steps(), terminal)
        return Sought(windows_of(peaks), onward)

    @torch.no_grad()
    def evidence(
        self, peaks: Peaks, prefix: Tensor, sought: Sought | None
    ) -> Tensor | None:
        """Evidence of the candidates (batch, place, token, feature)."""
        if sought is None:
            return None
        candidates = Candidates(self.masses, self.sums, self.place)
        found = candidate_evidence(peaks, prefix, candidates, sought.windows)
        dtype = self.codes.vectors.dtype
        if sought.onward is None:
            return found.to(dtype)
        candidates = candidates._replace(place=self.place_of_two)
        onward = onward_evidence(sought.onward, prefix, candidates, self.is_terminal)
        return torch.cat([found.to(dtype), onward.to(dtype)], dim=-1)

    def forced_scores(self, peaks: Peaks, memory: Memory, targets: Targets) -> Tensor:
        """Scores of what comes at each place, given the truth before it.

        Returns
        -------
        Tensor, shape (batch, place + 1, token + 1)
            The last score is that of the end.
        """
        decoder = self.autoregressive
        assert decoder is not None
        tokens = targets.tokens
        places = torch.arange(tokens.shape[1], device=tokens.device)
        is_there = places < targets.lengths[:, None]
        steps = self.masses[tokens].where(is_there, 0.0)
        prefix = nn.functional.pad(steps.cumsum(dim=1), (1, 0))
        codes = self.codes(self.masses)
        evidence = self.evidence(peaks, prefix, self.sought(peaks))
        before = torch.cat([decoder.start(peaks), decoder.embedding[tokens]], dim=1)
        places = torch.arange(prefix.shape[1], device=tokens.device)
        x = decoder.inputs(peaks, before, prefix, places, codes, evidence)
        hidden = decoder(x, memory)
        scores: Tensor = decoder.scores(hidden, codes, evidence)
        return scores

    def symbol_scores(self, states: Tensor) -> Tensor:
        """Scores of the symbols of every slot (batch, slot, token + 1), blank last."""
        assert self.nonautoregressive is not None
        return self.nonautoregressive.scores(states, self.codes(self.masses))


def grown_weights(
    weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Fit weights to a vocabulary with more tokens at its end.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Weights of a network with the smaller vocabulary.
    fresh : mapping of str to Tensor
        Those of the new network, which new tokens keep.

    Returns
    -------
    dict of str to Tensor
        What can be fitted, fitted; the rest as it was.
    """
    grown = dict(weights)
    # Behind the tokens stand stop and blank; blank and none; end and mask.
    n_others = {
        "codes.vectors": 2,
        "nonautoregressive.guesses": 2,
        "diffusion.symbols": 2,
        "autoregressive.embedding": 0,
    }
    for name, n_behind in n_others.items():
        if name in weights and name in fresh and len(weights[name]) < len(fresh[name]):
            old, new = weights[name], fresh[name].clone()
            n_tokens = len(old) - n_behind
            new[:n_tokens] = old[:n_tokens]
            new[len(new) - n_behind :] = old[n_tokens:]
            grown[name] = new
    for name in ("encoder.evidence.weight", "slot_encoder.evidence.weight"):
        if name not in weights or name not in fresh:
            continue
        # (d_model, complement 2, lighter residues, heavier residues)
        old, new = weights[name], fresh[name].clone()
        n_old, n_new = (one.shape[1] // 2 - 1 for one in (old, new))
        if n_old < n_new:
            new[:, :2] = old[:, :2]
            for half in (0, 1):
                to, of = 2 + half * n_new, 2 + half * n_old
                new[:, to : to + n_old] = old[:, of : of + n_old]
            grown[name] = new
    for name in ("nonautoregressive.told.weight", "diffusion.told.weight"):
        if name not in weights or name not in fresh:
            continue
        # (d_model, residues, over)
        old, new = weights[name], fresh[name].clone()
        new[:, : old.shape[1] - 1], new[:, -1] = old[:, :-1], old[:, -1]
        grown[name] = new
    return grown
