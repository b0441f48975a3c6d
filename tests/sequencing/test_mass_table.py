"""Composable masses, and beam searches held to them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sciseq.decoding.beam_search import beam_search
from sciseq.errors import InputError
from sciseq.sequencing.mass_constraint import MassConstraint
from sciseq.sequencing.mass_table import MassTable, mass_tolerance
from sciseq.sequencing.masses import C13, DEFAULT_MASSES, WATER

MASSES = np.array(list(DEFAULT_MASSES.values()))
IS_TERMINAL = np.array([token.endswith("-") for token in DEFAULT_MASSES])
RESIDUES = np.flatnonzero(~IS_TERMINAL)
TERMINALS = np.flatnonzero(IS_TERMINAL)
STOP = len(MASSES)


@pytest.fixture(scope="module")
def table():
    return MassTable(MASSES, is_terminal=IS_TERMINAL)


def rounded_table(masses, maximum, width):
    """Wrong: adds rounded masses, so that errors pile up."""
    steps = np.unique(np.round(masses / width).astype(int))
    is_composed = np.zeros(round(maximum / width) + 1, dtype=bool)
    is_composed[0] = True
    for number in range(1, len(is_composed)):
        before = number - steps[steps <= number]
        is_composed[number] = is_composed[before].any()
    return is_composed


@given(
    residues=st.lists(st.sampled_from(RESIDUES.tolist()), max_size=40),
    terminal=st.none() | st.sampled_from(TERMINALS.tolist()),
)
@settings(max_examples=300)
def test_what_can_be_composed_is_never_refused(table, residues, terminal):
    tokens = residues + ([] if terminal is None else [terminal])
    assert table.contains(MASSES[tokens].sum())


@example(masses=[25.0, 1.875], terminal=-2.0, counts=[12, 1, 0, 0], width=0.01)
@given(
    masses=st.lists(st.floats(0.6, 50.0), min_size=1, max_size=4),
    terminal=st.floats(-30.0, 30.0),
    counts=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    width=st.sampled_from([0.01, 0.07, 0.5]),
)
def test_any_masses_and_widths(masses, terminal, counts, width):
    n = len(masses)
    table = MassTable(
        [*masses, terminal, np.nan],
        is_terminal=[False] * n + [True, False],
        excluded=[n + 1],
        maximum=300.0,
        width=width,
    )
    total = float(np.dot(masses, counts[:n]))
    assert table.contains(total)
    assert table.contains(total + terminal)


def test_adding_rounded_masses_would_refuse_peptides():
    masses = MASSES[RESIDUES]
    rounded = rounded_table(masses, maximum=700.0, width=0.01)
    table = MassTable(masses, maximum=700.0)
    sums = [sum(one) for one in itertools.combinations_with_replacement(masses, 4)]
    sums = np.array([one for one in sums if one < 699])
    assert table.contains(sums).all()
    assert not rounded[(sums / 0.01).astype(int)].all()


def test_little_else_is_let_through():
    masses = MASSES[RESIDUES]
    table = MassTable(masses, maximum=500.0)
    sums = {0.0}
    for _ in range(9):  # no more residues below 500 Da
        sums |= {one + mass for one in sums for mass in masses if one + mass < 500.01}
        sums = {round(one, 6) for one in sums}
    is_composed = np.zeros(len(table.is_composed) + 2, dtype=bool)
    bins = np.floor(np.array(sorted(sums)) / 0.01 + 1e-7).astype(int)
    is_composed[bins] = True
    is_composed = is_composed[: len(table.is_composed)]
    assert not (is_composed & ~table.is_composed).any()
    assert (table.is_composed & ~is_composed).sum() < 0.01 * is_composed.sum()
    # Within a bin, too: what is refused or not at random places.
    places = np.random.default_rng(0).uniform(0, 499, 20_000)
    known = np.array(sorted(sums))
    right = np.searchsorted(known, places)
    distance = np.minimum(known[right] - places, places - known[right - 1])
    got = table.contains(places, tolerance=0.002)
    assert got[distance < 0.002].all()
    assert (got & (distance > 0.002)).sum() < 0.1 * got.sum()


@pytest.mark.parametrize("mass", [-100.0, -10.0, 0.5, 30.0, 58.5, 75.0, 300.9])
def test_impossible_masses_are_refused(table, mass):
    assert not table.contains(mass)
    assert not table.contains(mass, tolerance=0.02)


@pytest.mark.parametrize("mass", [6000.5, 7000.0, 1e5])
def test_nothing_is_refused_beyond_the_table(table, mass):
    assert table.contains(mass)


def test_tolerance_and_negative_masses(table):
    ammonia = DEFAULT_MASSES["[Ammonia-loss]-"]
    got = table.contains(
        [ammonia, ammonia - 0.5, ammonia - 0.03, 57.05], [0, 0, 0.03, 0.03]
    )
    assert got.tolist() == [True, False, True, True]
    assert table.contains(57.021464 + ammonia)
    assert not MassTable(MASSES[RESIDUES]).contains(57.021464 + ammonia)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(masses=[57.0, -17.0]), "lightest"),
        (dict(masses=[57.0, np.nan]), "finite"),
        (dict(masses=[57.0], excluded=[0]), "at least one residue"),
        (dict(masses=[57.0], is_terminal=[False, True]), "is_terminal"),
        (dict(masses=[57.0], width=2.0), "width is 2.0"),
        (dict(masses=[57.0], maximum=0.001), "maximum"),
    ],
)
def test_bad_tables_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MassTable(**arguments)


def test_mass_tolerance():
    got = mass_tolerance([2000.0], ppm=10, absolute=0.1)
    assert got.tolist() == pytest.approx([0.12], abs=1e-15)
    with pytest.raises(InputError, match="ppm is -1"):
        mass_tolerance([2000.0], ppm=-1, absolute=0)


# --- the constraint ------------------------------------------------------------------


class Noise:
    """Random log-probabilities that depend on item and place only."""

    def __init__(self, n_items, n_tokens, n_places=60, seed=0, scale=2.0):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(n_items, n_places, n_tokens, generator=generator)
        self.log_probs = (scale * scores).log_softmax(-1)

    def start(self, n_items, n_beams, max_length):
        self.items = torch.arange(n_items)

    def step(self, tokens):
        row = self.log_probs[self.items, tokens.shape[2]]
        return row[:, None].expand(-1, tokens.shape[1], -1)

    def reorder(self, parents):
        pass

    def keep(self, items):
        self.items = self.items[items]


def peptides(n, seed=0, with_terminal=True):
    """Neutral masses of random peptides."""
    rng = np.random.default_rng(seed)
    masses = []
    for _ in range(n):
        total = MASSES[rng.choice(RESIDUES, rng.integers(1, 15))].sum()
        if with_terminal and rng.random() < 0.5:
            total += MASSES[rng.choice(TERMINALS)]
        masses.append(total + WATER)
    return np.array(masses)


def search(constraint, n_items, beam_size, seed=0):
    decoder = Noise(n_items, STOP + 1, seed=seed)
    return beam_search(
        decoder,
        n_items=n_items,
        beam_size=beam_size,
        max_length=40,
        stop=STOP,
        allowed=constraint,
    )


def mass_errors(found, neutral_masses, isotopes=(0,)):
    """Smallest distance from the measured mass, and tokens, of each found item."""
    for item, M in enumerate(neutral_masses):
        length = int(found.lengths[item, 0])
        tokens = found.tokens[item, 0, :length].numpy()
        if found.totals[item, 0] > -torch.inf:
            off = M - WATER - MASSES[tokens].sum()
            yield min(abs(off - k * C13) for k in isotopes), tokens


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize("isotopes", [(0, 0), (-1, 2)])
def test_results_have_the_right_mass(table, beam_size, isotopes):
    M = peptides(40)
    settings = dict(stop=STOP, ppm=20.0, absolute=0.002, isotopes=isotopes)
    found = search(MassConstraint(table, M, **settings), 40, beam_size)
    tolerance = M * 20e-6 + 0.002 + 1e-6
    numbers = range(isotopes[0], isotopes[1] + 1)
    errors = list(mass_errors(found, M, numbers))
    assert len(errors) == 40
    for (error, tokens), most in zip(errors, tolerance, strict=True):
        assert error <= most
        assert not IS_TERMINAL[tokens[:-1]].any()


def test_isotopes_matter(table):
    M = peptides(20) + C13
    apart = search(MassConstraint(table, M, stop=STOP, ppm=5.0), 20, 5)
    meant = search(MassConstraint(table, M, stop=STOP, ppm=5.0, isotopes=(1, 1)), 20, 5)
    for error, _ in mass_errors(meant, M, [1]):
        assert error <= 5e-6 * M.max() + 1e-6
    assert not torch.equal(apart.tokens, meant.tokens)


@given(
    residues=st.lists(st.sampled_from(RESIDUES.tolist()), min_size=1, max_size=12),
    terminal=st.none() | st.sampled_from(TERMINALS.tolist()),
    off=st.floats(-1.0, 1.0),
    isotope=st.integers(-1, 2),
)
@settings(max_examples=60)
def test_the_true_peptide_is_always_allowed(table, residues, terminal, off, isotope):
    tokens = [*residues, *([] if terminal is None else [terminal]), STOP]
    total = MASSES[tokens[:-1]].sum() + WATER + isotope * C13
    tolerance = total * 10e-6
    constraint = MassConstraint(
        table, [total + off * tolerance * 0.99], stop=STOP, ppm=10.0, isotopes=(-1, 2)
    )
    state = constraint.start(1, 2, torch.device("cpu"))
    for token in tokens:
        assert constraint.mask(state)[0, :, token].all()
        state = constraint.advance(state, torch.full((1, 2), min(token, STOP)))


def test_nothing_follows_a_terminal_modification(table):
    acetyl = list(DEFAULT_MASSES).index("[Acetyl]-")
    M = 42.010565 + 57.021464 + WATER
    constraint = MassConstraint(table, [M], stop=STOP)
    state = constraint.start(1, 1, torch.device("cpu"))
    # First the residue: the modification comes last.
    assert not constraint.mask(state)[0, 0, acetyl]
    state = constraint.advance(state, torch.tensor([[0]]))
    assert torch.nonzero(constraint.mask(state)[0, 0]).flatten().tolist() == [acetyl]
    state = constraint.advance(state, torch.tensor([[acetyl]]))
    assert torch.nonzero(constraint.mask(state)[0, 0]).flatten().tolist() == [STOP]


def test_a_loss_can_repair_what_is_too_heavy(table):
    loss = list(DEFAULT_MASSES).index("[Ammonia-loss]-")
    Q = list(DEFAULT_MASSES).index("Q")
    M = MASSES[Q] + MASSES[loss] + WATER
    constraint = MassConstraint(table, [M], stop=STOP)
    state = constraint.start(1, 1, torch.device("cpu"))
    state = constraint.advance(state, torch.tensor([[Q]]))
    assert torch.nonzero(constraint.mask(state)[0, 0]).flatten().tolist() == [loss]


def test_an_item_does_not_depend_on_its_batch(table):
    M = peptides(12)
    together = search(MassConstraint(table, M, stop=STOP), 12, 4)
    for item in range(12):
        decoder = Noise(12, STOP + 1)
        decoder.log_probs = decoder.log_probs[item : item + 1]
        alone = beam_search(
            decoder,
            n_items=1,
            beam_size=4,
            max_length=40,
            stop=STOP,
            allowed=MassConstraint(table, M[item : item + 1], stop=STOP),
        )
        assert torch.equal(alone.tokens[0], together.tokens[item])


def test_equals_exhaustive_search_on_a_toy():
    masses = np.array([57.02, 71.04, 128.06, 42.01, -17.03])
    table = MassTable(masses, is_terminal=[False] * 3 + [True, True], maximum=500.0)
    decoder = Noise(6, 6, scale=1.0)
    M = np.array([128.06, 185.08, 170.07, 182.07, 54.01, 256.12]) + WATER
    constraint = MassConstraint(table, M, stop=5, ppm=0.0, absolute=0.005)
    found = beam_search(
        decoder, n_items=6, beam_size=300, max_length=4, stop=5, allowed=constraint
    )
    for item in range(6):
        best = (-np.inf, ())
        for length in range(5):
            for tokens in itertools.product(range(5), repeat=length):
                off = M[item] - WATER - masses[list(tokens)].sum()
                if abs(off) > 0.005 or any(one > 2 for one in tokens[:-1]):
                    continue
                log_probs = decoder.log_probs[item].numpy()
                total = sum(log_probs[t, one] for t, one in enumerate((*tokens, 5)))
                best = max(best, (total, tokens))
        assert best[1]
        got = found.tokens[item, 0, : found.lengths[item, 0]]
        assert tuple(got.tolist()) == best[1]
        assert float(found.totals[item, 0]) == pytest.approx(best[0], abs=1e-5)


def test_the_stop_may_stand_inside_the_table():
    table = MassTable([np.nan, 57.021464, np.nan], excluded=[0, 2])
    constraint = MassConstraint(table, [57.021464 + WATER], stop=0)
    state = constraint.start(1, 1, torch.device("cpu"))
    assert constraint.mask(state).tolist() == [[[False, True, False]]]
    state = constraint.advance(state, torch.tensor([[1]]))
    assert constraint.mask(state).tolist() == [[[True, False, False]]]


def test_bad_constraints_are_refused(table):
    with pytest.raises(InputError, match="isotopes"):
        MassConstraint(table, [500.0], stop=STOP, isotopes=(1, 0))
    with pytest.raises(InputError, match="stop is 99"):
        MassConstraint(table, [500.0], stop=99)
    constraint = MassConstraint(table, [500.0], stop=STOP)
    with pytest.raises(InputError, match="2 items"):
        constraint.start(2, 1, torch.device("cpu"))
