"""Make the pictures of docs/generators.md: one for each method, from its own parts.

    python docs/pictures/make_generator_pictures.py [NAME ...]

Every generator of the registry whose ``method_card`` wants a picture is fitted to a few
words, a minute in all. Nothing is drawn by hand: what is hidden is what its loss shows
to the network, who reads whom comes from its layout and rule, and passes are those of
its decoder.
"""

import argparse
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sciseq.generation.method_card import method_card_of
from sciseq.generation.parts.batches import SequenceBatch
from sciseq.generation.parts.combiner_reference import combiner_spans
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.masks import Rule, attention_mask
from sciseq.generation.parts.requests import Decoder, Requests, Rows, generate
from sciseq.generation.sequences.axial import AxialAutoregressor
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.sequences.conditional_diffusion import (
    ConditionalDiffusionSequence,
)
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence
from sciseq.generation.sequences.sequential_prompt import SequentialPromptSampler
from sciseq.plotting import save_figure
from sciseq.registry import METHODS, Method

HERE = Path(__file__).parent / "generators"
LENGTH = 8
WORDS = ["ABCDABCD", "BADCBADC", "CCDDAABB", "DBDBACAC"] * 8
LABELS = ["u", "v", "u", "v"] * 8
TABLES = np.arange(32 * 12).reshape(32, 3, 4) % 5
SMALL = {
    "d_model": 16,
    "d_ff": 32,
    "n_heads": 2,
    "dropout": 0.0,
    "max_epochs": 30,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "random_state": 0,
    "device": "cpu",
}
N_SHOWN = 6  # sequences whose hidden tokens are shown
GAP = "?"

# Colours of Okabe and Ito.
WHITE, GREY, ORANGE = "#f2f2f2", "#a6a6a6", "#e69f00"
READS = {"no": WHITE, "is read": "#0072b2", "is read indirectly": "#56b4e9",
         "is read in training only": "#cc79a7"}  # fmt: skip
STATES = {"not yet": WHITE, "known": GREY, "new": "#009e73"}

Table = npt.NDArray[np.int64]


@dataclass
class Seen:
    """What a method showed of itself."""

    hidden: Table  # (sequence, position): 1 where training hides
    reads: Table  # (query, key): an index of READS
    names: list[str]  # of the rows that read
    cut: int | None  # where the clean copy begins
    passes: Table  # (pass, position): an index of STATES
    computed: Table  # (pass, position): 1 where a row is computed


# --------------------------------------------------------------------- training


def training(model: Any) -> tuple[Table, Table, list[str], int | None]:
    """Let the loss show a few sequences; say what is hidden, and who reads whom."""
    network = model._network().train()
    loss = getattr(model, "proposal_", model)._loss(1)
    loss.progress = 1.0
    labels = None if model.condition_coding_ is None else LABELS[:N_SHOWN]
    tokens, told = model._encoded(
        model.alphabet_, model.condition_coding_, WORDS[:N_SHOWN], labels
    )
    batch = SequenceBatch(tokens, torch.arange(len(tokens)), told)
    shown, layout, rule = first_read(network, lambda: loss(network, batch))
    network.eval()
    hidden = (shown == network.mask)[:, :LENGTH].long().numpy()
    hidden = np.pad(hidden, ((0, 0), (0, LENGTH - hidden.shape[1])))
    reads = attention_mask(rule, layout)[0, 0].long().numpy()
    if isinstance(model, ConditionalDiffusionSequence):
        later = attention_mask(model._decoder(Drawing()).rule, layout)[0, 0].numpy()
        only_now = list(READS).index("is read in training only")
        reads = np.where((reads == 1) & ~later, only_now, reads)
    letters = [*model.alphabet_.tokens, *GAP * 3]
    names = [letters[one] for one in shown[0].tolist()]
    n_before = layout.n_rows - len(names)
    cut = n_before + LENGTH if len(names) > LENGTH else None
    return hidden, reads, [*"c" * (n_before - 1), "^", *names], cut


def first_read(network: Any, compute: Any) -> tuple[torch.Tensor, Layout, Rule]:
    """Return symbols, and layout and rule of one sequence, of the first pass."""
    read, forward, seen = network.read, network.forward, []

    def note_symbols(tokens: torch.Tensor, *others: Any) -> Any:
        seen.append(tokens)
        return read(tokens, *others)

    def note_layout(x: torch.Tensor, layout: Layout, rule: Rule, *others: Any) -> Any:
        seen.extend([layout.map(lambda one: one[:1]), rule])
        return forward(x, layout, rule, *others)

    network.read, network.forward = note_symbols, note_layout
    try:
        with torch.no_grad():
            compute()
    finally:
        del network.read, network.forward
    return seen[0], seen[1], seen[2]


def through_spans(n: int, model: CombinerSequence) -> Table:
    """Say which rows are read directly, and which through the summary of a span."""
    table = np.zeros((n, n), dtype=np.int64)
    for i in range(n):
        direct, spans = combiner_spans(
            i, n, plan=str(model.plan), span=model.span, causal=True
        )
        table[i, direct] = 1
        table[i, [j for one in spans for j in one]] = 2
    return table


# --------------------------------------------------------------- pass after pass


@dataclass
class Recorder(Decoder):
    """A decoder that notes what each pass computes and fills, of one request."""

    inner: Decoder
    known: list[torch.Tensor] = field(default_factory=list)
    computed: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Be as the decoder within."""
        self.rule, self.keeps_prefix = self.inner.rule, self.inner.keeps_prefix

    def start(self, requests: Requests) -> None:
        """Note what the begin alone says."""
        self.known.append(requests.is_filled[0].clone())
        self.inner.start(requests)
        if not torch.equal(self.known[-1], requests.is_filled[0]):
            self._note(requests, torch.zeros(requests.n_positions))

    def computes_prefix(self, requests: Requests) -> bool:
        """Tell what the decoder within tells."""
        return self.inner.computes_prefix(requests)

    def rows(self, requests: Requests) -> Rows:
        """Choose what the decoder within chooses."""
        return self.inner.rows(requests)

    def commit(self, requests: Requests, rows: Rows, scores: torch.Tensor) -> None:
        """Note a pass."""
        place = rows.layout.position[0][rows.layout.segment[0] != NOTHING]
        self.inner.commit(requests, rows, scores)
        self._note(requests, torch.zeros(requests.n_positions).scatter(0, place, 1.0))

    def _note(self, requests: Requests, computed: torch.Tensor) -> None:
        self.known.append(requests.is_filled[0].clone())
        self.computed.append(computed)

    def tables(self) -> tuple[Table, Table]:
        """Return what was known and new, and what was computed, by passes."""
        known = torch.stack(self.known).long()
        new = known[1:] - known[:-1]
        return (known[1:] + new).numpy(), torch.stack(self.computed).long().numpy()


def sampling(model: Any) -> tuple[Table, Table]:
    """Let the decoder of a method write one sequence."""
    network = model._network()
    decoder = Recorder(model._decoder(Drawing()))
    told = model._condition_rows(None if model.condition_coding_ is None else ["u"])
    requests = Requests(
        tokens=torch.full((1, LENGTH), network.mask),
        is_filled=torch.zeros(1, LENGTH, dtype=torch.bool),
        seeds=torch.tensor([3]),
        mask=network.mask,
        condition=told,
    )
    generate(network, decoder, requests)
    return decoder.tables()


# ------------------------------------------------------------------- the methods


def of_sequences(model: Any) -> Seen:
    """Watch a generator that is made of the parts."""
    host = model._host() if isinstance(model, SequentialPromptSampler) else model
    hidden, reads, names, cut = training(host)
    if isinstance(model, CombinerSequence):
        reads = through_spans(len(reads), model)
    return Seen(hidden, reads, names, cut, *sampling(host))


def of_tables(model: AxialAutoregressor) -> Seen:
    """Watch the axial network: which cells move the scores of which others."""
    cells: Any = model._network().backbone.cells
    n_rows, n_columns = TABLES.shape[1:]
    n = n_rows * n_columns
    embedded = torch.randn(1, n_rows, n_columns, SMALL["d_model"],
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
    embedded.requires_grad_()
    states = cells.states(embedded).reshape(n, -1)
    moved = [torch.autograd.grad(one.sum(), embedded, retain_graph=True)[0]
             for one in states.square()]  # fmt: skip
    is_read = torch.stack(moved).abs().sum(-1).reshape(n, n).numpy() > 0
    row = np.arange(n) // n_columns
    reads = is_read * np.where(row[:, None] == row, 1, 2)
    order: list[int] = []

    def draw(scores: torch.Tensor, cell: int) -> torch.Tensor:
        order.append(cell)
        return torch.zeros(len(scores), dtype=torch.int64)

    with torch.no_grad():
        cells.sample(draw, 1)
    new = np.eye(n, dtype=np.int64)[order]
    return Seen(
        hidden=np.zeros((N_SHOWN, n), dtype=np.int64),
        reads=reads,
        names=[f"{i},{j}" for i in range(n_rows) for j in range(n_columns)],
        cut=None,
        passes=new.cumsum(axis=0) + new,
        computed=new,
    )


def seen_of(method: Method) -> Seen:
    """Fit a method to a few words, and watch it."""
    cls = getattr(import_module(method.module_name), method.class_name)
    options = dict(method_card_of(method).picture or {})
    if cls is SequentialPromptSampler:
        host = MaskedDiffusionSequence(**SMALL)
        return of_sequences(cls(generator=host, **options).fit(WORDS))
    model = cls(**{**SMALL, **options})
    if cls is AxialAutoregressor:
        return of_tables(model.fit(TABLES))
    if cls is ConditionalDiffusionSequence:
        return of_sequences(model.fit(WORDS, LABELS))
    return of_sequences(model.fit(WORDS))


# ------------------------------------------------------------------- the drawing


def cells(axis: Axes, table: Table, colors: list[str], title: str) -> None:
    """Draw a table of colours with white lines between its cells."""
    axis.imshow(table, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(colors) - 0.5)
    axis.set_anchor("N")
    axis.set_title(title, fontsize=11, loc="left")
    n, m = table.shape
    axis.set_xticks(np.arange(m + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="both", length=0, labelsize=9)
    for side in axis.spines.values():
        side.set_visible(False)


def draw(seen: Seen, path: Path) -> None:
    """Draw the three panels of one method."""
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    cells(left, seen.hidden, [WHITE, ORANGE], "hidden in training")
    left.set(xticks=range(seen.hidden.shape[1]), yticks=[],
             xlabel="position", ylabel=f"{N_SHOWN} sequences")  # fmt: skip
    if not seen.hidden.any():
        left.text(0.5, 0.5, "nothing", ha="center", va="center",
                  transform=left.transAxes)  # fmt: skip
    cells(middle, seen.reads, list(READS.values()), "who reads whom")
    places, size = range(len(seen.names)), 9 if len(seen.names) < 12 else 7.5
    middle.set_xticks(places, seen.names, fontsize=size)
    middle.set_yticks(places, seen.names, fontsize=size)
    middle.set(xlabel="is read", ylabel="reads")
    if seen.cut is not None:
        middle.axhline(seen.cut - 0.5, color="black", linewidth=1)
        middle.axvline(seen.cut - 0.5, color="black", linewidth=1)
        middle.set(xlabel="noisy copy | clean copy", ylabel="clean copy | noisy copy")
    cells(right, seen.passes, list(STATES.values()), "written, pass by pass")
    right.set(xticks=range(seen.passes.shape[1]), yticks=range(len(seen.passes)),
              xlabel="position", ylabel="pass")  # fmt: skip
    y, x = np.nonzero(seen.computed)
    right.scatter(x, y, s=9, color="black")
    legend(figure, seen)
    save_figure(left, path)


def legend(figure: Figure, seen: Seen) -> None:
    """Say what the colours of the picture mean."""
    used = set(np.unique(seen.reads)) - {0}
    colors = {"hidden": ORANGE} if seen.hidden.any() else {}
    colors |= {name: one for i, (name, one) in enumerate(READS.items()) if i in used}
    colors |= {name: STATES[name] for name in ("new", "known")}
    dot = figure.axes[2].scatter([], [], s=9, color="black", label="computed")
    figure.legend(
        handles=[*(Patch(color=one, label=name) for name, one in colors.items()), dot],
        loc="outside lower center", ncols=len(colors) + 1, frameon=False, fontsize=9,
    )  # fmt: skip


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", help="methods; all by default")
    wanted = options.parse_args().names
    HERE.mkdir(exist_ok=True)
    for method in METHODS:
        if method.data != "generation" or (wanted and method.name not in wanted):
            continue
        if method_card_of(method).picture is not None:
            draw(seen_of(method), HERE / f"{method.name}.png")


if __name__ == "__main__":
    main()
