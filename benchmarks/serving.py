"""Serving benchmark: one request after the other, static batches, continuous batching.

Requests for the rest of a sequence arrive at random (Poisson). Three servers answer the
same ones: `sequential` one by one, `static` whatever waits when it is idle, as one
batch until the longest is done, `continuous` lets requests join and leave at every
pass. All run the same code, ``ContinuousBatcher``, that is told when to start whom.

Time is simulated from measured passes: the clock runs on by the processor time that a
pass took, and jumps to the next arrival when nothing is left. A load of 1 is as much as
the sequential server can do.

    python benchmarks/serving.py               # all cells, then the tables
    python benchmarks/serving.py --again       # measure anew
    python benchmarks/serving.py --table-only  # from what is cached
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from measuring import Cell, digits, median, parser, report, run_cells, table, verdict

from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.serving import ContinuousBatcher

LENGTH, MAX_ACTIVE, N_REQUESTS = 64, 32, 48
LOADS = (0.5, 2.0, 8.0)
# Passes of a request, all equally likely; means are equal.
SPREADS = {"equal": (32, 32), "unequal": (2, 62)}
SERVERS = ("sequential", "static", "continuous")

Ask = dict[str, object]


def model() -> AutoregressiveSequence:
    """Return a small model; what it has learned does not matter."""
    letters = np.random.default_rng(0).choice(list("ACGT"), (64, LENGTH))
    return AutoregressiveSequence(
        max_epochs=1, random_state=0, device="cpu", validation_fraction=0.0
    ).fit(["".join(one) for one in letters])


def asks(spread: str, n: int) -> list[Ask]:
    """Return what is asked for: sequences of which the beginning is given."""
    least, most = SPREADS[spread]
    rng = np.random.default_rng(1)
    n_gaps = rng.integers(least, most + 1, n)  # a pass each
    return [
        {"template": "A" * (LENGTH - k) + "?" * k, "random_state": i}
        for i, k in enumerate(n_gaps.tolist())
    ]


class Server:
    """A batcher on a clock of its own.

    Parameters
    ----------
    batcher : ContinuousBatcher
        What makes the passes.
    is_static : bool
        Whether who waits is let in only when nobody is served.
    """

    def __init__(self, batcher: ContinuousBatcher, *, is_static: bool) -> None:
        self.batcher, self.is_static = batcher, is_static
        self.now = self.busy = 0.0

    def answer(self, wanted: list[Ask], arrivals: list[float]) -> list[float]:
        """Return the seconds from the arrival of each request to its last token."""
        batcher, arrived = self.batcher, 0
        open_tickets: dict[int, float] = {}
        latencies = []
        while arrived < len(wanted) or open_tickets:
            if not open_tickets:
                self.now = max(self.now, arrivals[arrived])
            may_join = not (self.is_static and batcher.n_active)
            while may_join and arrived < len(wanted) and arrivals[arrived] <= self.now:
                if self.is_static and batcher.n_waiting == MAX_ACTIVE:
                    break
                ticket = batcher.submit(**wanted[arrived])  # type: ignore[arg-type]
                open_tickets[ticket] = arrivals[arrived]
                arrived += 1
            before = time.process_time()
            batcher.advance()
            seconds = time.process_time() - before
            self.now, self.busy = self.now + seconds, self.busy + seconds
            for ticket in [one for one in open_tickets if batcher.is_done(one)]:
                batcher.result(ticket)
                latencies.append(self.now - open_tickets.pop(ticket))
        return latencies


def measure(cell: Cell) -> Cell:
    """Latencies and passes of all servers, from the same arrivals."""
    fitted = model()
    wanted = asks(cell["spread"], cell["n_requests"])
    alone = Server(ContinuousBatcher(fitted, 1), is_static=False)
    alone.answer(wanted[:4], [0.0] * 4)  # not counted
    first, sample = alone.now, wanted[:16]
    alone.answer(sample, [first] * len(sample))
    each = (alone.now - first) / len(sample)  # seconds of a request on its own
    rng = np.random.default_rng(2)
    gaps = rng.exponential(each / cell["load"], cell["n_requests"])
    arrivals = gaps.cumsum().tolist()
    found: Cell = {"seconds_alone": each}
    for name in SERVERS:
        batcher = ContinuousBatcher(fitted, 1 if name == "sequential" else MAX_ACTIVE)
        server = Server(batcher, is_static=name == "static")
        latencies = server.answer(wanted, arrivals)
        found[name] = {
            "mean": float(np.mean(latencies)),
            "late": float(np.quantile(latencies, 0.95)),
            "passes": batcher.served.n_passes,
            "most_active": batcher.served.most_active,
            "tokens_per_second": batcher.served.n_tokens / server.busy,
        }
    return found


def value_table(results: list[Cell], key: str, scale: Callable[[Cell], float],
                head: str) -> list[str]:  # fmt: skip
    """Make the table of one figure of all servers."""
    rows = [
        [
            one["spread"],
            one["load"],
            *(digits(one["found"][name][key] * scale(one)) for name in SERVERS),
        ]
        for one in results
    ]
    return table(["lengths", "load", *(f"{one}{head}" for one in SERVERS)], rows)


def verdicts(results: list[Cell]) -> list[str]:
    """Say whether continuous batching pays, and more so for unequal lengths."""
    lines = []
    for one in results:
        found = one["found"]
        for other in ("sequential", "static"):
            ratio = found[other]["mean"] / found["continuous"]["mean"]
            what = f"mean latency, {other} over continuous, {one['spread']} lengths, "
            lines.append(
                verdict(f"{what}load {one['load']:g}", ratio, 1, at_least=True)
            )
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.set_defaults(threads=1)
    chosen = options.parse_args()
    n_requests = 12 if chosen.quick else N_REQUESTS
    wanted: list[Cell] = [
        {"spread": spread, "load": load, "n_requests": n_requests}
        for spread in SPREADS
        for load in LOADS
    ]
    results = run_cells("serving", wanted, measure, chosen)
    if not results:
        return 1
    alone = median([1e3 * one["found"]["seconds_alone"] for one in results])
    lines = [
        f"{n_requests} requests, at most {MAX_ACTIVE} at a time; "
        "`AutoregressiveSequence` of default size on sequences of "
        f"{LENGTH} tokens. Passes of a request: 32 (equal), 2 to 62 (unequal). A "
        f"request on its own takes {alone:.0f} ms. One run of each cell.",
        "",
        "Mean latency, in times of a request on its own:",
        "",
        *value_table(
            results, "mean", lambda one: 1 / one["found"]["seconds_alone"], ""
        ),
        "",
        "Latency that 95 % of the requests stay below, likewise:",
        "",
        *value_table(
            results, "late", lambda one: 1 / one["found"]["seconds_alone"], ""
        ),
        "",
        "Passes for all requests (counted):",
        "",
        *value_table(results, "passes", lambda one: 1, ""),
        "",
        "Tokens per second of computing:",
        "",
        *value_table(results, "tokens_per_second", lambda one: 1, ""),
    ]
    title = "Serving sequence generators on a processor"
    report("serving", title, lines, verdicts(results), results, chosen)
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
