"""Parts of a batch see the dropout masks of the whole batch, at every alignment."""

import pytest
import torch

from sciseq.nn import Dropout, set_dropout_generator
from sciseq.training import generator_for
from sciseq.training.dropout_rows import DropoutRows


def masks(dropout, x, sizes):
    """Outputs of parts of ``sizes`` rows, and the draw that follows them."""
    generator = generator_for(0, "rows")
    set_dropout_generator(dropout, generator)
    rows, start = DropoutRows(dropout), generator.get_state()
    found, first = [], 0
    with rows.known():
        for part in x.split(sizes):
            generator.set_state(start)
            with rows.part(first, len(part), n_rows=len(x)):
                found += [dropout(part), dropout(part.repeat_interleave(3, 0))[::3]]
            first += len(part)
    return found[::2], found[1::2], torch.rand(1, generator=generator)


@pytest.mark.parametrize("shape", [(7, 3), (7, 4, 1), (7, 5, 2), (7, 1)])
@pytest.mark.parametrize("sizes", [[7], [1] * 7, [2, 5], [3, 3, 1]])
def test_parts_together_are_the_whole(shape, sizes):
    dropout, x = Dropout(0.4), torch.ones(shape, dtype=torch.float64)
    whole, tripled, after = masks(dropout, x, [7])
    parts, tripled_parts, after_parts = masks(dropout, x, sizes)
    assert torch.equal(torch.cat(parts), whole[0])
    assert torch.equal(torch.cat(tripled_parts), tripled[0])
    assert torch.equal(after_parts, after)
    assert "forward" not in vars(dropout)


def test_one_part_is_what_dropout_alone_does():
    dropout, x = Dropout(0.4), torch.randn(6, 5, generator=generator_for(0, "x"))
    (whole,), _, _ = masks(dropout, x, [6])
    dropout.generator = generator_for(0, "rows")
    assert torch.equal(whole, dropout(x))


def test_long_batches_pass_over_many_draws():
    dropout, x = Dropout(0.4), torch.ones(3, 300_001)
    (whole,), _, after = masks(dropout, x, [3])
    parts, _, after_parts = masks(dropout, x, [2, 1])
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(after_parts, after)


def test_what_does_not_grow_with_the_batch_is_drawn_whole():
    dropout, table = Dropout(0.4), torch.ones(5, 2)
    dropout.generator = generator_for(0, "rows")
    start = dropout.generator.get_state()
    whole, rows = dropout(table), DropoutRows(dropout)
    with rows.known():
        for first in (0, 2):
            dropout.generator.set_state(start)
            with rows.part(first, 2, n_rows=4):
                assert torch.equal(dropout(table), whole)


def test_when_predicting_nothing_is_drawn():
    dropout, x = Dropout(0.4).eval(), torch.ones(2, 2)
    rows = DropoutRows(dropout)
    with rows.known(), rows.part(0, 2, n_rows=4):
        assert dropout(x) is x
