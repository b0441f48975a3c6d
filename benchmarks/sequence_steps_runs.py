"""What sequence_steps.py measures: one function for each claim, all of one seed."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import Cell
from sequences import AUTOREGRESSIVE, CHAIN_SIZES, chain

import sciseq
from sciseq.generation.parts.delayed_decoder import DelayedDecoder
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.requests import Requests, Rows
from sciseq.generation.parts.reveal import Reveal, equal_amounts
from sciseq.generation.sequences.autoregressive import next_token_log_likelihood
from sciseq.generation.sequences.delayed_cache import DelayedCacheDiffusion
from sciseq.generation.synthetic import (
    checksum_strings,
    hairpins,
    has_checksum,
    is_paired,
)

SIZES: dict[str, Any] = {**CHAIN_SIZES, "learning_rate": 3e-3}
# Strings with a checksum: the base and the length. All strings that there are stand in
# the training set: what is asked is whether a law is kept, not whether it is guessed.
CHECKSUMS = {
    "parity of 6 bits": (2, 6),
    "parity of 8 bits": (2, 8),
    "sum of 4 digits modulo 4": (4, 4),
}
CHAIN_LENGTH, N_CHAINS = 32, 1500
ARM, LOOP = 6, 4
SEGMENTS, LETTERS = 8, 6


def epochs(cell: Cell, wanted: int) -> int:
    """Return the passes over the data; one in a quick run."""
    return 1 if cell["quick"] else wanted


def some(cell: Cell, wanted: int) -> int:
    """Return how many sequences; few in a quick run."""
    return 64 if cell["quick"] else wanted


def work_of(model: Any) -> Cell:
    """Means over the sequences that a model made last."""
    work = model.last_work
    return {
        "passes": float(work.n_passes.double().mean()),
        "rows": float(work.n_rows.double().mean()),
        "cache": float(work.cache_share.double().mean()),
        "tokens_per_row": float(work.tokens_per_row.double().mean()),
    }


# ------------------------------------------------------------ S5, joint dependence


def measure_joint(cell: Cell) -> Cell:
    """Strings with a checksum: kept against passes, and repaired."""
    base, length = CHECKSUMS[cell["data"]]
    rng = np.random.default_rng([5, cell["seed"]])
    X = checksum_strings(some(cell, 1000), length, rng, base)
    params = {**SIZES, "validation_fraction": 0.0, "random_state": cell["seed"],
              "max_epochs": epochs(cell, 80)}  # fmt: skip
    learned = sciseq.EnergyDiffusionSequence(**params, window=1.0).fit(X)
    causal = sciseq.EnergyDiffusionSequence(
        **params, window=1.0, energy="autoregressive"
    ).fit(X)
    broken, gaps = broken_strings(X[: some(cell, 1000)], base, rng)
    found: Cell = {"losses": [one["train_loss"] for one in learned.history_]}
    for name, model, k in (
        ("masked diffusion", learned, 1),
        ("EDLM, learned energy, k = 2", learned, 2),
        ("EDLM, learned energy, k = 8", learned, 8),
        ("EDLM, autoregressive energy, k = 8", causal, 8),
    ):
        curve = []
        for steps in sorted({1, 2, 4, length}):
            model.set_params(n_candidates=k, n_steps=steps)
            made = model.sample(some(cell, 1000), random_state=cell["seed"])
            is_kept = has_checksum(made, base)
            n_kinds = len(np.unique(made[is_kept], axis=0))
            curve.append(
                {
                    "steps": steps,
                    "kept": float(is_kept.mean()),
                    "different": n_kinds / base ** (length - 1),
                    **work_of(model),
                }
            )
        model.set_params(n_candidates=k, n_steps=1)
        mended = model.infill(gaps, random_state=cell["seed"])
        repaired = float(has_checksum(mended, base).mean())
        found[name] = {"curve": curve, "repaired": repaired}
    found["broken"] = float(has_checksum(broken, base).mean())
    return found


def broken_strings(X: Any, base: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Change a symbol of each string; hide it and another one."""
    rows = np.arange(len(X))
    places = rng.permuted(np.tile(np.arange(X.shape[1]), (len(X), 1)), axis=1)
    broken = X.copy()
    shift = rng.integers(1, base, size=len(X))
    broken[rows, places[:, 0]] = (broken[rows, places[:, 0]] + shift) % base
    gaps = broken.copy()
    gaps[rows, places[:, 0]] = gaps[rows, places[:, 1]] = -1
    return broken, gaps


# ------------------------------------------------- S4, quality and work of parallel


def chain_quality(known: Any, samples: Any) -> Cell:
    """How far pairs of neighbours are from the true law, and what it says of them."""
    pairs = np.zeros((known.n_states, known.n_states))
    np.add.at(pairs, (samples[:, :-1].ravel(), samples[:, 1:].ravel()), 1)
    law = known.initial[:, None] * known.transition
    logs = known.log_prob(samples)
    finite = logs[np.isfinite(logs)]
    return {
        "distance": float(0.5 * np.abs(pairs / pairs.sum() - law).sum()),
        "nats": float(-finite.mean() / samples.shape[1]) if len(finite) else None,
    }


def measure_steps(cell: Cell) -> Cell:
    """Quality against passes on the known chain, and the delayed cache there."""
    known, seed = chain(), cell["seed"]
    X = known.sample(
        some(cell, N_CHAINS), CHAIN_LENGTH, np.random.default_rng([1, seed])
    )
    params = {**SIZES, "random_state": seed}
    n, found = some(cell, 500), {}

    def judged(model: Any) -> Cell:
        samples = model.sample(n, random_state=seed)
        return {**chain_quality(known, samples), **work_of(model)}

    learned = sciseq.EnergyDiffusionSequence(
        **params, max_epochs=epochs(cell, 60), window=1.0
    ).fit(X)
    longer = sciseq.MaskedDiffusionSequence(**params, max_epochs=epochs(cell, 120))
    plain = sciseq.AutoregressiveSequence(**params, max_epochs=epochs(cell, 30)).fit(X)
    causal = sciseq.EnergyDiffusionSequence(
        **params, max_epochs=epochs(cell, 60), window=1.0, energy="autoregressive"
    ).fit(X)
    for name, model, changes in (
        ("masked diffusion", learned, {"n_candidates": 1}),
        ("masked diffusion, twice the training", longer.fit(X), {}),
        ("EDLM, learned energy, k = 4", learned, {"n_candidates": 4}),
        ("EDLM, autoregressive energy, k = 4", causal, {"n_candidates": 4}),
    ):
        found[name] = [
            judged(model.set_params(**changes, n_steps=steps))
            for steps in (1, 2, 4, 8, 16, 32)
        ]
    for size in (4, 8):
        model = sciseq.EfficientBlockDiffusion.from_autoregressive(
            plain, block_size=size, threshold=None, dropout=0.0, learning_rate=3e-3,
            device="cpu", max_epochs=epochs(cell, 30), random_state=seed,
        ).fit(X)  # fmt: skip
        for order in ("random", "confidence"):
            found[f"Efficient-DLM, blocks of {size}, {order}"] = [
                judged(model.set_params(n_steps=steps, order=order))
                for steps in (1, 2, 4, 8)
                if steps <= size
            ]
    found[AUTOREGRESSIVE] = [judged(plain)]
    made = delayed_runs(longer, CHAIN_LENGTH, judged)
    return {"quality": found, "delayed": made}


# ------------------------------------------------------------ delayed cache, S3


class NoDelayDecoder(DelayedDecoder):
    """The control: a token is taken from the cache at once, where it is a mask yet."""

    def commit(self, requests: Requests, rows: Rows, scores: torch.Tensor) -> None:
        """Store the rows, and trust them."""
        super().commit(requests, rows, scores)
        requests.memory["is_settled"] = requests.is_filled.clone()


class NoDelayDiffusion(DelayedCacheDiffusion):
    """Samples without the delay."""

    def _decoder(self, drawing: Drawing) -> DelayedDecoder:
        return NoDelayDecoder(
            drawing,
            Reveal(self.order, equal_amounts(self.n_steps), self.threshold),
            refresh=int(self.refresh),
            n_layers=int(self.n_layers),
        )


def delayed_runs(
    fitted: Any, length: int, judged: Callable[[Any], Cell]
) -> dict[str, Cell]:
    """Judge one fitted model with and without caches."""
    fitted.set_params(n_steps=None)
    found = {"no cache": judged(fitted)}
    for share in (2, 4):
        fitted.set_params(n_steps=length // share)
        found[f"no cache, 1/{share} of the passes"] = judged(fitted)
    fitted.set_params(n_steps=None)
    for refresh in (2, 4, 8, length):
        for kind, name in ((DelayedCacheDiffusion, "decode"),
                           (NoDelayDiffusion, "no delay")):  # fmt: skip
            model = kind.from_masked_diffusion(fitted, refresh=refresh)
            found[f"{name}, N = {refresh}"] = judged(model)
    model = DelayedCacheDiffusion.from_masked_diffusion(
        fitted, variant="greedy", refresh=2
    )
    found["greedy, N = 2, window 4"] = judged(model)
    return found


def measure_cache(cell: Cell) -> Cell:
    """Hairpins: pairs that match against rows computed."""
    rng = np.random.default_rng([3, cell["seed"]])
    X = hairpins(some(cell, 2000), ARM, LOOP, rng)
    model = sciseq.MaskedDiffusionSequence(
        **{**SIZES, "n_layers": 3}, max_epochs=epochs(cell, 80),
        random_state=cell["seed"],
    ).fit(X)  # fmt: skip

    def judged(one: Any) -> Cell:
        made = one.sample(some(cell, 500), random_state=cell["seed"])
        return {"pairs": float(is_paired(made, ARM).mean()), **work_of(one)}

    return delayed_runs(model, X.shape[1], judged)


# ------------------------------------------------- S3, several tokens in one pass


def measure_blocks(cell: Cell) -> Cell:
    """Hairpins: block diffusion beside the autoregressive model that it began from.

    No base of a block of 4 or 8 pairs with another one of its block, so that one pass
    may draw a whole block. The control is masked diffusion in as many passes, where
    bases that pair are drawn together.
    """
    rng, seed = np.random.default_rng([3, cell["seed"]]), cell["seed"]
    X = hairpins(some(cell, 2000), ARM, LOOP, rng)
    params = {**SIZES, "n_layers": 3, "random_state": seed}

    def judged(model: Any, **changes: Any) -> Cell:
        made = model.set_params(**changes).sample(some(cell, 500), random_state=seed)
        return {"pairs": float(is_paired(made, ARM).mean()),
                "different": len(np.unique(made[:, :ARM], axis=0)),
                **work_of(model)}  # fmt: skip

    plain = sciseq.AutoregressiveSequence(**params, max_epochs=epochs(cell, 80)).fit(X)
    found = {AUTOREGRESSIVE: judged(plain)}
    for name, kind in {"SDAR": sciseq.BlockDiffusionSequence,
                       "NBDiff": sciseq.NextBlockSequence}.items():  # fmt: skip
        for size in (4, 8):
            model = kind.from_autoregressive(
                plain, block_size=size, dropout=0.0, learning_rate=3e-3, device="cpu",
                random_state=seed, max_epochs=epochs(cell, 40),
            ).fit(X)  # fmt: skip
            for order in ("left_to_right", "confidence"):
                for steps in (1, 2, 4):
                    found[f"{name}, blocks of {size}, {steps} passes, {order}"] = (
                        judged(model, n_steps=steps, threshold=None, order=order)
                    )
    masked = sciseq.MaskedDiffusionSequence(**params, max_epochs=epochs(cell, 120))
    masked.fit(X)
    for steps in (4, 8, 16):
        found[f"masked diffusion, {steps} passes"] = judged(masked, n_steps=steps)
    return found


# ------------------------------------------------- LaViDa, conditions with segments


def segments(n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw strings, and what is known of them: the two letters of every segment.

    As where a spectrum tells the mass of two residues together: their order is open,
    and they depend on each other.
    """
    X = rng.integers(LETTERS, size=(n, 2 * SEGMENTS))
    two = np.sort(X.reshape(n, SEGMENTS, 2), axis=2)
    which = two[..., 0] * LETTERS + two[..., 1]
    y = np.concatenate(
        [np.broadcast_to(np.eye(SEGMENTS), (n, SEGMENTS, SEGMENTS)),
         np.eye(LETTERS**2)[which]], axis=2,
    )  # fmt: skip
    return X, y


def agreeing(X: Any, made: Any) -> float:
    """Share of the segments that have their two letters."""
    two = [
        np.sort(np.asarray(one).reshape(-1, SEGMENTS, 2), axis=2) for one in (X, made)
    ]
    return float((two[0] == two[1]).all(axis=2).mean())


def measure_tokens(cell: Cell) -> Cell:
    """Complementary masks against single ones, and plans of how much is uncovered."""
    seed = cell["seed"]
    rng = np.random.default_rng([9, seed])
    X, y = segments(some(cell, 2000), rng)
    asked, told = segments(some(cell, 300), rng)
    found: Cell = {"examples": [], "plans": {}}
    for passes in (4, 8, 16, 32):
        one: Cell = {"examples": passes * len(X)}
        for name, complementary, times in (
            ("complementary", True, 1),
            ("single", False, 1),
            ("single, twice the steps", False, 2),
        ):
            model = sciseq.ConditionalDiffusionSequence(
                **SIZES, complementary=complementary, order="confidence",
                validation_fraction=0.0,
                max_epochs=epochs(cell, passes * times), random_state=seed,
            )  # fmt: skip
            started = time.process_time()
            model.fit(X, y)
            one[name] = {"seconds": time.process_time() - started}
            made = model.sample(condition=told, random_state=seed)
            one[name]["agreeing"] = agreeing(asked, made)
            if complementary:
                kept = model
        found["examples"].append(one)
    for name, changes in {
        "shifted, alpha = 1/3": {"plan": "shifted", "alpha": 1 / 3},
        "linear": {"plan": "linear"},
        "shifted, alpha = 3": {"plan": "shifted", "alpha": 3.0},
        "cosine": {"plan": "cosine"},
    }.items():
        found["plans"][name] = {}
        for order in ("confidence", "random"):
            curve = []
            for steps in (1, 2, 4, 8, 16):
                kept.set_params(**changes, order=order, n_steps=steps)
                made = kept.sample(condition=told, random_state=seed)
                curve.append(agreeing(asked, made))
            found["plans"][name][order] = curve
    return found


# ------------------------------------------------------------------ S4, conversion


def measure_conversion(cell: Cell) -> Cell:
    """Go on from an autoregressive model, or begin anew."""
    known, seed = chain(), cell["seed"]
    X = known.sample(
        some(cell, N_CHAINS), CHAIN_LENGTH, np.random.default_rng([1, seed])
    )
    test = known.sample(some(cell, 400), CHAIN_LENGTH, np.random.default_rng([2, seed]))
    of: dict[str, Any] = {"random_state": seed}
    first = epochs(cell, 15)
    base = sciseq.AutoregressiveSequence(**SIZES, **of, max_epochs=first).fit(X)
    others = {name: SIZES[name] for name in ("dropout", "learning_rate", "device")}

    def nats(model: Any) -> float:
        return float(-np.mean(model.score_samples(test)) / CHAIN_LENGTH)

    def causal(model: Any) -> float:
        with torch.no_grad():
            logs, _ = next_token_log_likelihood(
                model._network(), torch.from_numpy(model.alphabet_.encode(test)), None,
                None,
            )  # fmt: skip
        return float(-logs.double().mean() / CHAIN_LENGTH)

    found: Cell = {"before": nats(base), "before, read causally": causal(base),
                   "truth": float(-known.log_prob(test).mean() / CHAIN_LENGTH),
                   "bound": [], "causal": {}}  # fmt: skip
    kinds = {"SDAR": (sciseq.BlockDiffusionSequence, {"block_size": 4}),
             "masked diffusion": (sciseq.MaskedDiffusionSequence, {})}  # fmt: skip
    for passes in (2, 5, 10, 20):
        n = epochs(cell, passes)
        for name, (kind, changes) in kinds.items():
            model = kind.from_autoregressive(
                base, **others, **changes, **of, max_epochs=n
            ).fit(X)
            if name == "SDAR":
                found["causal"][f"SDAR, {passes}"] = causal(model)
            one: Cell = {"method": name, "passes": passes, "converted": nats(model)}
            for key, total in (("scratch", n), ("scratch, all passes", first + n)):
                model = kind(**SIZES, **changes, **of, max_epochs=total).fit(X)
                one[key] = nats(model)
            found["bound"].append(one)
        for weight in (0.5, 0.0):
            model = sciseq.NextBlockSequence.from_autoregressive(
                base, **others, **of, max_epochs=n, autoregressive_weight=weight
            ).fit(X)
            found["causal"][f"NBDiff, weight {weight:g}, {passes}"] = nats(model)
    return found


MEASURES: dict[str, Callable[[Cell], Cell]] = {
    "joint": measure_joint,
    "blocks": measure_blocks,
    "cache": measure_cache,
    "tokens": measure_tokens,
    "conversion": measure_conversion,
    "steps": measure_steps,
}


def measure(cell: Cell) -> Cell:
    """Measure a cell."""
    return MEASURES[cell["part"]](cell)
