"""What a waiting user sees, and that nothing else is written."""

import io
import re
import sys

import pytest

from sciseq.errors import SciSeqWarning
from sciseq.training import train


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch):
    # Not a fixture: pytest exchanges sys.stderr once more before the test begins.
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def run(toys, options, loss=None, validation=True):
    data = toys.Regression(20)
    loss = loss or toys.squared_error
    held_out = data if validation else None
    return train(toys.perceptron(), loss, data, held_out, options)


def test_silent_by_default(toys, make_options, capfd):
    run(toys, make_options())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("validation", [True, False])
def test_one_plain_line_per_epoch_off_a_terminal(toys, make_options, capfd, validation):
    result = run(toys, make_options(verbose=1, max_epochs=3), validation=validation)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    for number, (line, record) in enumerate(
        zip(lines, result.history, strict=True), start=1
    ):
        losses = f"train_loss {record['train_loss']:.6g}"
        if validation:
            losses += f"  validation_loss {record['validation_loss']:.6g}"
        start = f"epoch {number}/3  {losses}  learning_rate "
        assert line.startswith(start)
        assert re.fullmatch(r"0\.0\d+  \d+\.\d s", line.removeprefix(start))


def test_a_live_bar_on_a_terminal(toys, make_options, monkeypatch):
    terminal = open_terminal(monkeypatch)
    streams = set()

    def loss(network, batch):
        streams.update((sys.stdout, sys.stderr))
        return toys.squared_error(network, batch)

    before = {sys.stdout, terminal}
    result = run(toys, make_options(verbose=1, max_epochs=3), loss)
    assert streams == before  # nobody else's output is captured
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert f"epoch 3/3  train_loss {result.history[-1]['train_loss']:.6g}" in text
    assert re.search(r"\d:\d\d:\d\d", text)  # the time left
    assert "epoch 3/3" in text.splitlines()[-1]


def test_the_bar_gives_the_cursor_back_after_an_interrupt(
    toys, make_options, monkeypatch
):
    terminal = open_terminal(monkeypatch)

    def interrupt(total):
        raise KeyboardInterrupt

    with pytest.warns(SciSeqWarning, match="interrupted"):
        run(toys, make_options(verbose=1), loss=toys.AtStep({5: interrupt}))
    shown, hidden = "\x1b[?25h", "\x1b[?25l"
    text = terminal.getvalue()
    assert text.count(hidden) == 1
    assert text.rindex(shown) > text.rindex(hidden)


def test_a_program_without_standard_error(toys, make_options, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert run(toys, make_options(verbose=1)).stopped == "max_epochs"
