r"""Peptides by conditional masked diffusion: training in pairs, decoding in passes.

A peptide is a sequence of places, C-terminus first, with ends behind it, which are
targets like all others: so its length is predicted, too. In training every place is
hidden in one of two copies. A prediction starts with all places hidden; each pass shows
those that the network is surest of, and what comes out is held to the mass of the
precursor.

Axes: ``batch`` (B), ``place`` (L), ``token`` (V, the end behind them), ``step`` (K).
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.parts.corruption import bernoulli_mask, complement, ensure_one
from sciseq.generation.parts.noise import content_keys, uniform
from sciseq.generation.parts.plans import transfer_plan
from sciseq.generation.parts.selection import confidence, top_n
from sciseq.sequencing.diffusion_decoder import FirstHidden, SpectrumReading
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.mass_control import most_probable_paths
from sciseq.sequencing.masses import WATER
from sciseq.sequencing.network import PeptideNetwork, Sought, Targets
from sciseq.sequencing.objective import PeptideBatch
from sciseq.sequencing.peptide_search import Found, SearchSettings, first_of_mass

__all__ = [
    "DiffusionTraining",
    "PeptideDenoiser",
    "denoise",
    "noise",
    "places_of",
    "search_places",
    "wanted_tokens",
]

_LEAST_LEVEL = 1e-3
# Beyond the residues that the mass allows: one for the rounding of masses, one for a
# terminal modification, and the end.
_MORE_PLACES = 3


def places_of(precursor_mass: Tensor, lightest: Tensor | float, most: int) -> Tensor:
    r"""Count the places that a peptide of a mass may reach, with its end.

    .. math:: n = \min(L, \lfloor (M - m_{H_2O}) / m_{min} \rfloor + 3)

    Parameters
    ----------
    precursor_mass : Tensor of float64, shape (batch,)
        Neutral masses M in Da.
    lightest : Tensor or float
        Mass of the lightest residue in Da.
    most : int
        L, of the network.

    Examples
    --------
    >>> import torch
    >>> places_of(torch.tensor([500.0, 9000.0]), 57.021464, 41).tolist()
    [11, 41]
    """
    residues = ((precursor_mass - WATER) / lightest).floor().clamp_min(0)
    return (residues.long() + _MORE_PLACES).clamp_max(most)


class PeptideDenoiser:
    """Spectra, read once, and what the network makes of partly hidden peptides.

    Parameters
    ----------
    network : PeptideNetwork
        A network with a diffusion decoder.
    peaks : Peaks
        Spectra.

    Attributes
    ----------
    is_place : Tensor of bool
        For each spectrum, the places that a peptide of the mass may reach, see
        :func:`places_of`.
    """

    def __init__(self, network: PeptideNetwork, peaks: Peaks) -> None:
        assert network.diffusion is not None
        self.network, self.decoder = network, network.diffusion
        memory = network.encode(peaks)
        lightest, most = network.residues.min(), self.decoder.n_places
        n = places_of(peaks.precursor_mass, lightest, most)
        # Elsewhere than on a CPU the host would have to wait for the number.
        on_cpu = n.device.type == "cpu"
        n_places = int(n.max()) if on_cpu else most
        places = torch.arange(n_places, device=n.device)
        self.is_place = places < n.unsqueeze(1)
        self.reading = SpectrumReading(
            peaks,
            self.decoder.memory(memory.tokens),
            memory.is_token,
            network.codes(network.masses),
            network.told_places(peaks, n_places),
            self.is_place,
        )
        self.sought: Sought | None = network.sought(peaks)

    def scores(self, shown: Tensor) -> Tensor:
        """Score what may be hidden (batch, place, token + 1), the end last.

        Parameters
        ----------
        shown : Tensor of int64, shape (batch, place)
            Tokens, ends and masks.
        """
        is_hidden = (shown == self.decoder.mask) & self.is_place
        place = is_hidden.int().argmax(dim=1)
        # Ends and masks weigh nothing.
        steps = F.pad(self.network.masses, (0, 2))[shown]
        before = torch.arange(shown.shape[1], device=shown.device) < place.unsqueeze(1)
        prefix = (steps * before).sum(dim=1, keepdim=True)
        evidence = self.network.evidence(self.reading.peaks, prefix, self.sought)
        found: Tensor = self.decoder(
            self.reading, shown, FirstHidden(place, prefix, evidence)
        )
        return found


# ----------------------------------------------------------------------- training


def wanted_tokens(targets: Targets, n_places: int, stop: int) -> Tensor:
    """Write peptides with ends up to so many places; what does not fit is cut off.

    Parameters
    ----------
    targets : Targets
        Peptides.
    n_places : int
        Places L.
    stop : int
        The end.

    Returns
    -------
    Tensor of int64, shape (batch, place)

    Examples
    --------
    >>> import torch
    >>> targets = Targets(torch.tensor([[3, 1], [2, 0]]), torch.tensor([2, 1]))
    >>> wanted_tokens(targets, 4, 9).tolist()
    [[3, 1, 9, 9], [2, 9, 9, 9]]
    """
    tokens, lengths = targets
    tokens = F.pad(tokens, (0, max(n_places - tokens.shape[1], 0)))[:, :n_places]
    places = torch.arange(n_places, device=tokens.device)
    return tokens.where(places < lengths.unsqueeze(1), stop)


def noise(batch: PeptideBatch, seed: int, step: int, n: int) -> Tensor:
    """Draw numbers (batch, n), uniform in (0, 1), that no other spectrum matters to.

    Parameters
    ----------
    batch : PeptideBatch
        Spectra and peptides.
    seed, step : int
        Seed of all noise, and number of the step.
    n : int
        How many for each.
    """
    tokens, lengths = batch.targets
    places = torch.arange(tokens.shape[1], device=tokens.device)
    # What is behind the end adds nothing to the key, whatever the width of the batch.
    item = content_keys(tokens.where(places < lengths.unsqueeze(1), -1))
    item = item + batch.peaks.precursor_mass.contiguous().view(torch.int64)
    number = torch.arange(n, device=tokens.device).unsqueeze(0)
    return uniform(torch.full_like(item, seed), item.unsqueeze(1), step, number)


class DiffusionTraining:
    r"""Cross-entropy of every place, each hidden in one of two copies.

    .. math::

        L = \sum_{i \in S} -\log p(a_i \mid a_{A \setminus S}, E)
        + \sum_{i \in A \setminus S} -\log p(a_i \mid a_S, E), \qquad
        P(i \in S) = p, \quad p \sim U(10^{-3}, 1 - 10^{-3})

    over the places A that the mass allows, the ends among them. All places weigh alike.

    Parameters
    ----------
    seed : int
        Seed of the masks.

    Notes
    -----
    Card: sequences §16 (LaViDa): complementary masks, aligned targets, plain
    cross-entropy. Masks depend on the spectrum and the step alone; validation hides the
    same places every time.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self._step = seed, 0

    def on_step(self, step: int, n_steps: int) -> None:
        """Take note of the step that begins, counted from 0."""
        self._step = step

    def masks(
        self, network: nn.Module, batch: PeptideBatch, is_place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the two copies hide, bool of shape (batch, place) each."""
        step = self._step + 1 if network.training else 0
        u = noise(batch, self.seed, step, 1 + is_place.shape[1])
        p = (1 - 2 * _LEAST_LEVEL) * u[:, 0] + _LEAST_LEVEL
        mask = bernoulli_mask(is_place, p, u[:, 1:])
        mask = ensure_one(mask, is_place, u[:, 1:])
        return mask, complement(mask, is_place)

    def __call__(
        self, network: nn.Module, batch: PeptideBatch
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the number of places."""
        assert isinstance(network, PeptideNetwork)
        denoiser = PeptideDenoiser(network, batch.peaks)
        is_place, decoder = denoiser.is_place, denoiser.decoder
        wanted = wanted_tokens(batch.targets, is_place.shape[1], decoder.stop)
        total = denoiser.reading.codes.new_zeros(())
        for mask in self.masks(network, batch, is_place):
            scores = denoiser.scores(wanted.masked_fill(mask, decoder.mask))
            asked = wanted.masked_fill(~mask, -100)
            total = total + F.cross_entropy(
                scores.flatten(0, 1), asked.flatten(), ignore_index=-100,
                reduction="sum",
            )  # fmt: skip
        return total, is_place.sum()


# ---------------------------------------------------------------------- prediction


@functools.lru_cache(maxsize=1024)
def _amounts(n_places: int, n_steps: int) -> tuple[int, ...]:
    """Places that each step shows; with fewer places than steps the last have none."""
    plan = transfer_plan(n_places, min(n_steps, n_places)).tolist()
    return (*plan, *[0] * (n_steps - len(plan)))


def denoise(denoiser: PeptideDenoiser, n_steps: int) -> tuple[Tensor, Tensor]:
    """Show all places, the surest first, along the plan of LaViDa.

    Parameters
    ----------
    denoiser : PeptideDenoiser
        Spectra.
    n_steps : int
        Passes K.

    Returns
    -------
    tokens : Tensor of int64, shape (batch, place)
        What was shown; ends where there is no place.
    logs : Tensor of float64, shape (batch, place, token + 1)
        Log-probabilities of each place in the pass that showed it.
    """
    is_place, decoder = denoiser.is_place, denoiser.decoder
    is_hidden = is_place.clone()
    tokens = torch.full_like(is_place, decoder.stop, dtype=torch.int64)
    tokens = tokens.masked_fill(is_place, decoder.mask)
    counts = is_place.sum(dim=1).tolist()
    amounts = torch.tensor([_amounts(n, n_steps) for n in counts])
    logs = F.one_hot(torch.full_like(tokens, decoder.stop), decoder.stop + 1)
    logs = logs.double().log()  # an end for certain
    for n in amounts.to(tokens.device).unbind(dim=1):
        scores = denoiser.scores(tokens).double()
        chosen = top_n(confidence(scores), is_hidden, n)
        tokens = scores.argmax(dim=-1).where(chosen, tokens)
        logs = scores.log_softmax(dim=-1).where(chosen.unsqueeze(2), logs)
        is_hidden = is_hidden & ~chosen
    return tokens, logs


def search_places(
    network: PeptideNetwork, peaks: Peaks, settings: SearchSettings
) -> list[list[Found]]:
    """Search with the diffusion decoder: a few passes over all places.

    What the passes show is taken where its mass is right; elsewhere the most probable
    peptide of the right mass, by the probabilities of the passes that showed each
    place.

    Parameters
    ----------
    network : PeptideNetwork
        The network, in evaluation mode.
    peaks : Peaks
        Spectra.
    settings : SearchSettings
        How to search.

    Returns
    -------
    list of list of Found
        For each spectrum at most one peptide of the right mass.
    """
    shown, probable = denoise(PeptideDenoiser(network, peaks), settings.n_steps)
    tokens, logs = shown.cpu().numpy(), probable.cpu().numpy()
    masses, stop = peaks.precursor_mass.cpu().numpy(), len(network.vocabulary)
    missing = [
        item
        for item, (one, mass) in enumerate(zip(tokens, masses, strict=True))
        if not _is_peptide(one, mass, network, settings)
    ]
    is_found = np.ones(len(tokens), dtype=np.bool_)
    if missing:
        paths = most_probable_paths(
            logs[missing],
            masses[missing],
            network.vocabulary.masses,
            blank=stop,
            is_terminal=network.vocabulary.is_terminal,
            ppm=settings.ppm,
            isotopes=settings.isotopes,
            is_merging=False,
        )
        tokens[missing] = paths.paths
        is_found[missing] = np.isfinite(paths.scores)
    chosen = np.take_along_axis(logs, tokens[:, :, None], axis=2)[:, :, 0]
    found: list[list[Found]] = []
    for item, (one, own) in enumerate(zip(tokens, chosen, strict=True)):
        n = int((one != stop).sum())
        peptide = Found(one[:n][::-1].copy(), np.exp(own[:n][::-1]), float(own.sum()))
        found.append([peptide] if n and is_found[item] else [])
    return found


def _is_peptide(
    tokens: np.ndarray, mass: float, network: PeptideNetwork, settings: SearchSettings
) -> bool:
    """Whether ends follow a peptide of the right mass, and nothing else does."""
    is_end = tokens == len(network.vocabulary)
    n = int((~is_end).sum())
    option = torch.from_numpy(tokens), n, 0.0
    return bool(
        is_end[n:].all()
        and first_of_mass([option], mass, network.vocabulary, settings) is not None
    )
