"""What the tests of ``sciseq sequence`` share."""

from functools import partial
from pathlib import Path

import pytest
from command_toys import TINY, Result, Stub, write_spectra

import sciseq.cli.sequence_annotation
import sciseq.cli.sequence_evaluation
import sciseq.cli.sequence_prediction
from sciseq.cli import main
from sciseq.sequencing.sequencer import PeptideSequencer


@pytest.fixture
def console(capsys):
    """Run the command line in this process, as the console script does."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return Result(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def run(console):
    return partial(console, "sequence")


@pytest.fixture
def spectra(tmp_path) -> Path:
    return write_spectra(tmp_path / "run.mgf")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[PeptideSequencer, Path]:
    """A model that knows nothing, and the folder where it is saved."""
    folder = tmp_path_factory.mktemp("model")
    model = PeptideSequencer(**TINY, max_epochs=1, random_state=0)
    with pytest.warns(match="1 of 31 spectra were left out"):
        model.fit(write_spectra(folder / "training.mgf"))
    model.save(folder / "model")
    return model, folder / "model"


@pytest.fixture
def stub(monkeypatch):
    """Put a stub in the place of a saved model, and make chunks short."""

    def stub(*arguments, identity: str = "stub") -> Stub:
        model = Stub(*arguments)

        def load(path, device):
            return model.set_params(device=device)

        for module in (
            sciseq.cli.sequence_prediction,
            sciseq.cli.sequence_evaluation,
            sciseq.cli.sequence_annotation,
        ):
            monkeypatch.setattr(module, "load_sequencer", load)
        monkeypatch.setattr(
            sciseq.cli.sequence_prediction, "model_fingerprint", lambda path: identity
        )
        monkeypatch.setattr(sciseq.cli.sequence_prediction, "_CHUNK", 8)
        return model

    return stub
