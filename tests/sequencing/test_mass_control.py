"""Precise mass control against exhaustive search over all paths."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.mass_bounds import PathBounds, PathSymbols, PathTargets
from sciseq.sequencing.mass_control import most_probable_paths
from sciseq.sequencing.mass_table import mass_units, tolerance_units
from sciseq.sequencing.masses import C13, DEFAULT_MASSES, WATER

MASSES = np.array(list(DEFAULT_MASSES.values()))
IS_TERMINAL = np.array([token.endswith("-") for token in DEFAULT_MASSES])
RESIDUES = np.flatnonzero(~IS_TERMINAL)
BLANK = len(MASSES)
# Two residues that are nearly isobaric, one that weighs two others, two terminal ones.
TOY = np.array([128.058578, 128.094963, 57.021464, 114.042927, 42.010565, -17.026549])
TOY_TERMINAL = np.array([False] * 4 + [True] * 2)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def collapse(path, blank):
    merged = [symbol for symbol, _ in itertools.groupby(path)]
    return [symbol for symbol in merged if symbol != blank]


def is_met(tokens, masses, is_terminal, target, tolerance, isotopes=(0,)):
    if any(is_terminal[one] for one in tokens[:-1]):
        return False
    off = target - WATER - sum(masses[one] for one in tokens)
    return any(abs(off - k * C13) <= tolerance for k in isotopes)


def exhaustive(log_probs, masses, is_terminal, target, tolerance, isotopes=(0,)):
    n_positions, n_symbols = log_probs.shape
    best = -np.inf
    for path in itertools.product(range(n_symbols), repeat=n_positions):
        tokens = collapse(path, n_symbols - 1)
        if is_met(tokens, masses, is_terminal, target, tolerance, isotopes):
            score = sum(log_probs[t, symbol] for t, symbol in enumerate(path))
            best = max(best, score)
    return best


def toy_targets(rng, n, masses, is_terminal, n_positions):
    """Masses of random peptides that fit into the path, and one that has no peptide."""
    residues, terminals = np.flatnonzero(~is_terminal), np.flatnonzero(is_terminal)
    targets = []
    for _ in range(n - 1):
        tokens = rng.choice(residues, rng.integers(1, n_positions)).tolist()
        if len(terminals) and rng.random() < 0.4:
            tokens.append(rng.choice(terminals))
        targets.append(masses[tokens].sum() + WATER)
    return np.array([*targets, 91.5 + WATER])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("isotopes", [(0, 0), (-1, 2)])
def test_equals_exhaustive_search(seed, isotopes):
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(size=(6, 5, 7)) * 2)
    targets = toy_targets(rng, 6, TOY, TOY_TERMINAL, 5) + isotopes[1] * C13
    found = most_probable_paths(
        log_probs,
        targets,
        TOY,
        blank=6,
        is_terminal=TOY_TERMINAL,
        ppm=0.0,
        absolute=0.01,
        isotopes=isotopes,
        entries_per_bin=100,
    )
    assert found.is_exact.all()
    numbers = range(isotopes[0], isotopes[1] + 1)
    for row, target in enumerate(targets):
        want = exhaustive(log_probs[row], TOY, TOY_TERMINAL, target, 0.01, numbers)
        assert found.scores[row] == pytest.approx(want, abs=1e-12)
        if want == -np.inf:
            assert (found.paths[row] == 6).all()
            continue
        tokens = collapse(found.paths[row].tolist(), 6)
        assert is_met(tokens, TOY, TOY_TERMINAL, target, 0.01, numbers)
        along = log_probs[row, np.arange(5), found.paths[row]].sum()
        assert found.scores[row] == pytest.approx(along, abs=1e-12)
    assert found.scores[-1] == -np.inf and np.isfinite(found.scores[:-1]).sum() >= 4


def best_sequence(log_probs, masses, is_terminal, target, tolerance, isotopes=(0,)):
    """Best of all sequences with blanks behind them, symbol by symbol."""
    n_positions, n_symbols = log_probs.shape
    best = -np.inf
    for n in range(n_positions + 1):
        blanks = log_probs[n:, -1].sum()
        for tokens in itertools.product(range(n_symbols - 1), repeat=n):
            if is_met(tokens, masses, is_terminal, target, tolerance, isotopes):
                score = sum(log_probs[t, one] for t, one in enumerate(tokens))
                best = max(best, score + blanks)
    return best


@pytest.mark.parametrize("seed", range(2))
def test_without_merging_equals_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(size=(8, 5, 7)) * 2)
    targets = toy_targets(rng, 8, TOY, TOY_TERMINAL, 5)
    targets[0] = TOY[[2, 2, 2, 4]].sum() + WATER  # equal neighbours, a terminal one
    settings = {
        "blank": 6, "is_terminal": TOY_TERMINAL, "ppm": 0.0, "absolute": 0.01,
        "isotopes": (0, 1), "entries_per_bin": 100,
    }  # fmt: skip
    found = most_probable_paths(log_probs, targets, TOY, **settings, is_merging=False)
    merged = most_probable_paths(log_probs, targets, TOY, **settings)
    assert found.is_exact.all()
    wants = []
    for row, target in enumerate(targets):
        want = best_sequence(log_probs[row], TOY, TOY_TERMINAL, target, 0.01, range(2))
        wants.append(want)
        assert found.scores[row] == pytest.approx(want, abs=1e-12)
        path = found.paths[row].tolist()
        tokens = list(itertools.takewhile(lambda one: one != 6, path))
        assert path[len(tokens) :] == [6] * (5 - len(tokens))
        if want > -np.inf:
            assert is_met(tokens, TOY, TOY_TERMINAL, target, 0.01, range(2))
    assert np.isfinite(wants).sum() >= 4
    # Paths of CTC are others.
    is_found = np.isfinite(wants)
    assert np.abs(np.array(wants)[is_found] - merged.scores[is_found]).max() > 0.1


@given(
    seed=st.integers(0, 10_000),
    masses=st.lists(st.floats(0.3, 200.0), min_size=2, max_size=3, unique=True),
    blank=st.integers(0, 3),
    tolerance=st.floats(1e-4, 60.0),
)
@settings(max_examples=60)
def test_equals_exhaustive_search_for_any_masses(seed, masses, blank, tolerance):
    rng = np.random.default_rng(seed)
    masses = np.array(masses)
    n = len(masses)
    log_probs = log_softmax(rng.normal(size=(1, 5, n + 1)) * 2)
    target = masses[rng.choice(n, rng.integers(1, 5))].sum() + WATER
    target += rng.uniform(-1.5, 1.5) * tolerance
    none = np.zeros(n, dtype=bool)
    want = exhaustive(log_probs[0], masses, none, target, tolerance)
    # The blank may be any symbol.
    blank = min(blank, n)
    order = np.insert(np.arange(n), blank, n)
    found = most_probable_paths(
        log_probs[:, :, order],
        [target],
        np.insert(masses, blank, np.nan),
        blank=blank,
        ppm=0.0,
        absolute=tolerance,
        entries_per_bin=1000,
    )
    assert found.is_exact.all()
    assert found.scores[0] == pytest.approx(want, abs=1e-9)


def peptide_scores(n, seed, strength, n_positions=40, mass=1500.0):
    """Scores in which peptides are more or less visible, and their neutral masses."""
    rng = np.random.default_rng(seed)
    x = 1.5 * rng.normal(size=(n, n_positions, BLANK + 1))
    targets = np.zeros(n)
    for row in range(n):
        tokens = []
        while MASSES[tokens].sum() < mass - 60:
            tokens.append(rng.choice(RESIDUES))
        if rng.random() < 0.3:
            tokens.append(rng.choice(np.flatnonzero(IS_TERMINAL)))
        places = np.sort(rng.choice(n_positions, len(tokens), replace=False))
        path = np.full(n_positions, BLANK)
        path[places] = tokens
        sure = np.where(path == BLANK, 1.0, rng.uniform(0.2, 1, n_positions))
        x[row, np.arange(n_positions), path] += strength * sure
        targets[row] = MASSES[tokens].sum() + WATER
    return log_softmax(x), targets


@pytest.mark.parametrize("strength", [6.0, 9.0])
@pytest.mark.parametrize("isotopes", [(0, 0), (0, 1)])
def test_results_have_the_right_mass(strength, isotopes):
    log_probs, M = peptide_scores(8, 0, strength, mass=800.0)
    found = most_probable_paths(
        log_probs,
        M,
        MASSES,
        blank=BLANK,
        is_terminal=IS_TERMINAL,
        ppm=10.0,
        absolute=0.001,
        isotopes=isotopes,
    )
    is_found = found.scores > -np.inf
    assert is_found.mean() > 0.9
    plain = log_probs.max(axis=2).sum(axis=1)
    assert (found.scores <= plain + 1e-9).all()
    numbers = range(isotopes[0], isotopes[1] + 1)
    for row in np.flatnonzero(is_found):
        tokens = collapse(found.paths[row].tolist(), BLANK)
        tolerance = M[row] * 10e-6 + 0.001 + 1.1e-7
        assert is_met(tokens, MASSES, IS_TERMINAL, M[row], tolerance, numbers)
    # The plain path, which controls nothing, is not good enough.
    paths = log_probs.argmax(axis=2).tolist()
    off = [MASSES[collapse(one, BLANK)].sum() + WATER for one in paths] - M
    assert (np.abs(off) > 0.02).any()


def test_a_huge_tolerance_gives_the_plain_path():
    log_probs, M = peptide_scores(4, 1, 5.0)
    plain = log_probs[:, :, [*RESIDUES, BLANK]]
    found = most_probable_paths(
        plain, M, MASSES[RESIDUES], blank=len(RESIDUES), absolute=1e5
    )
    assert (found.paths == plain.argmax(axis=2)).all()
    assert found.is_exact.all()
    np.testing.assert_allclose(found.scores, plain.max(axis=2).sum(axis=1), atol=1e-9)


def test_a_row_does_not_depend_on_its_batch():
    log_probs, M = peptide_scores(9, 2, 8.0, mass=600.0)
    M += np.linspace(-0.003, 0.003, 9)
    settings = dict(blank=BLANK, is_terminal=IS_TERMINAL, ppm=10.0)
    together = most_probable_paths(log_probs, M, MASSES, **settings)
    for row in range(9):
        part = slice(row, row + 1)
        alone = most_probable_paths(log_probs[part], M[part], MASSES, **settings)
        if together.is_exact[row] and alone.is_exact[0]:
            assert alone.scores[0] == pytest.approx(together.scores[row], abs=1e-12)
            assert (alone.paths[0] == together.paths[row]).all()
    assert together.is_exact.sum() > 3


def test_few_states_are_worse_and_say_so():
    log_probs, M = peptide_scores(4, 3, 6.0, mass=700.0)
    settings = dict(blank=BLANK, is_terminal=IS_TERMINAL)
    many = most_probable_paths(log_probs, M, MASSES, **settings)
    few = most_probable_paths(log_probs, M, MASSES, max_states=5, **settings)
    assert not few.is_exact.all()
    assert (few.scores <= many.scores + 1e-9).all()
    assert (few.scores < many.scores - 0.1).any()
    exact = many.is_exact & few.is_exact
    np.testing.assert_allclose(few.scores[exact], many.scores[exact], atol=1e-12)


def all_bounds(log_probs, target, tolerance, isotopes):
    """Bounds of the whole path of each row, from its beginning."""
    symbols = PathSymbols.read(TOY, TOY_TERMINAL, (), 6, log_probs.shape)
    shifts = mass_units(np.arange(isotopes[0], isotopes[1] + 1) * C13)
    tolerances = np.full(len(target), tolerance_units(tolerance))
    targets = PathTargets(mass_units(target - WATER), tolerances, shifts)
    bounds = PathBounds(log_probs, targets, symbols)
    rows = np.arange(len(target))
    return bounds(0, np.full(len(target), 6), rows, targets.units)


def test_bounds_are_never_below_the_best_path():
    rng = np.random.default_rng(5)
    log_probs = log_softmax(rng.normal(size=(8, 5, 7)) * 2)
    target = toy_targets(rng, 8, TOY, TOY_TERMINAL, 5)
    bounds = all_bounds(log_probs, target, 0.01, (0, 1))
    best = [
        exhaustive(log_probs[row], TOY, TOY_TERMINAL, target[row], 0.01, (0, 1))
        for row in range(8)
    ]
    assert (bounds >= np.array(best) - 1e-5).all()
    # They look at the mass: mostly they are below the best path of any mass.
    assert (bounds < log_probs.max(axis=2).sum(axis=1) - 0.1).sum() > 3


def test_bounds_that_are_too_small_are_caught(monkeypatch):
    rng = np.random.default_rng(0)
    log_probs = log_softmax(rng.normal(size=(8, 5, 7)) * 2)
    target = toy_targets(rng, 8, TOY, TOY_TERMINAL, 5)
    settings = dict(blank=6, is_terminal=TOY_TERMINAL, absolute=60.0)
    right = most_probable_paths(log_probs, target, TOY, **settings)
    bound = PathBounds.__call__

    def too_small(self, t, last, item, remaining):
        return bound(self, t, last, item, remaining) - 1e3 * (last % 2)

    monkeypatch.setattr(PathBounds, "__call__", too_small)
    wrong = most_probable_paths(log_probs, target, TOY, **settings)
    assert (wrong.scores < right.scores - 1e-3).any()


def test_excluded_symbols_are_not_used():
    log_probs = np.log([[[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]]])
    settings = dict(blank=2, absolute=0.1)
    masses = [57.02, 57.02]
    used = most_probable_paths(log_probs, [57.02 + WATER], masses, **settings)
    other = most_probable_paths(
        log_probs, [57.02 + WATER], [np.nan, 57.02], excluded=[0], **settings
    )
    assert used.paths.tolist() == [[0, 2]]
    assert other.paths.tolist() == [[2, 1]] or other.paths.tolist() == [[1, 2]]


def test_nothing_to_do():
    found = most_probable_paths(np.zeros((0, 3, 2)), [], [57.0], blank=1)
    assert found.paths.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(blank=7), "blank is 7"),
        (dict(masses=TOY[:4]), r"masses \(4,\)"),
        (dict(is_terminal=np.zeros(6, bool)), "positive for residues"),
        (dict(neutral_masses=[500.0, 600.0]), "one mass per row"),
        (dict(isotopes=(1, 0)), "ascending"),
        (dict(max_states=0), "max_states"),
        (dict(ppm=-1.0), "ppm is -1"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = dict(
        log_probs=np.zeros((1, 5, 7)),
        neutral_masses=[500.0],
        masses=TOY,
        blank=6,
        is_terminal=TOY_TERMINAL,
    )
    with pytest.raises(InputError, match=message):
        most_probable_paths(**(arguments | change))


def test_nan_is_refused():
    log_probs = np.zeros((2, 5, 7))
    log_probs[1, 2, 3] = np.nan
    with pytest.raises(DataQualityError, match="row 1"):
        most_probable_paths(
            log_probs, [500.0] * 2, TOY, blank=6, is_terminal=TOY_TERMINAL
        )
