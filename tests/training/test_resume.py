"""A run that was stopped and resumed equals one that was not."""

import pytest

from sciseq.errors import CheckpointError, SciSeqWarning
from sciseq.training import loop, train


def run(toys, options, actions=None):
    """Train for 4 steps an epoch; return bits, history and result."""
    network = toys.perceptron()
    result = train(
        network,
        toys.AtStep(actions or {}),
        toys.Regression(30),
        toys.Regression(8, stream="validation"),
        options,
    )
    return toys.bits(network), toys.without_seconds(result.history), result


def assert_equal_runs(toys, first, second):
    assert toys.is_same(first[0], second[0])
    assert first[1] == second[1]
    for name in ("best_epoch", "best_loss", "stopped"):
        assert getattr(first[2], name) == getattr(second[2], name)


def die(total):
    raise RuntimeError("killed")


def interrupt(total):
    raise KeyboardInterrupt


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("step", [2, 4, 5, 11, 20])
def test_bad_40_resumed_equals_uninterrupted(toys, make_options, tmp_path, step, every):
    whole = run(toys, make_options())
    options = make_options(checkpoint_dir=tmp_path, checkpoint_every=every)
    with pytest.raises(RuntimeError, match="killed"):
        run(toys, options, {step: die})
    assert_equal_runs(toys, run(toys, options), whole)


def test_bad_40_interrupted_again_and_again(toys, make_options, tmp_path):
    whole = run(toys, make_options())
    options = make_options(checkpoint_dir=tmp_path)
    for n_done in (1, 2, 3):
        with pytest.warns(SciSeqWarning, match=f"interrupted in epoch {n_done + 1}"):
            _, _, result = run(toys, options, {6: interrupt})  # one epoch and a half
        assert (result.stopped, len(result.history)) == ("interrupted", n_done)
    assert_equal_runs(toys, run(toys, options), whole)


def test_the_optimizer_state_is_needed(toys, make_options, tmp_path, monkeypatch):
    """A resume that forgets it is told apart by the comparison above."""

    def forgetful(checkpoint, network, optimizer, options):
        state = restore(checkpoint, network, optimizer, options)
        optimizer.state.clear()
        return state

    whole = run(toys, make_options())
    options = make_options(checkpoint_dir=tmp_path)
    with pytest.raises(RuntimeError):
        run(toys, options, {11: die})
    restore = loop.restore
    monkeypatch.setattr(loop, "restore", forgetful)
    assert not toys.is_same(run(toys, options)[0], whole[0])


def test_weight_decay_and_early_stopping_resume_too(toys, make_options, tmp_path):
    settings = {"weight_decay": 0.1, "learning_rate": 0.3, "patience": 2}
    settings |= {"max_epochs": 30, "schedule": lambda epoch: 1.0}
    whole = run(toys, make_options(**settings))
    n_epochs = len(whole[1])
    assert whole[2].stopped == "early_stopping"
    assert n_epochs < 30
    options = make_options(**settings, checkpoint_dir=tmp_path)
    with pytest.raises(RuntimeError):  # in the last epoch, with a count of one worse
        run(toys, options, {4 * n_epochs - 2: die})
    assert_equal_runs(toys, run(toys, options), whole)


def test_a_finished_run_returns_at_once_and_a_longer_one_goes_on(
    toys, make_options, tmp_path
):
    whole = run(toys, make_options(max_epochs=7))
    options = make_options(checkpoint_dir=tmp_path, max_epochs=3)
    first = run(toys, options)
    assert_equal_runs(toys, run(toys, options, {1: die}), first)
    longer = make_options(checkpoint_dir=tmp_path, max_epochs=7)
    assert_equal_runs(toys, run(toys, longer), whole)
    with pytest.raises(CheckpointError, match="7 epochs, max_epochs is 3") as caught:
        run(toys, options)
    assert "Set max_epochs to at least 7" in str(caught.value)


def test_without_validation(toys, make_options, tmp_path):
    data, loss = toys.Regression(30), toys.squared_error
    whole, resumed = toys.perceptron(), toys.perceptron()
    train(whole, loss, data, None, make_options())
    train(
        resumed, loss, data, None, make_options(max_epochs=2, checkpoint_dir=tmp_path)
    )
    train(resumed, loss, data, None, make_options(checkpoint_dir=tmp_path))
    assert toys.is_same(toys.bits(whole), toys.bits(resumed))


def test_only_the_last_two_checkpoints_stay(toys, make_options, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    options = make_options(checkpoint_dir=tmp_path, checkpoint_every=2)
    run(toys, options)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "epoch-000004.safetensors",
        "epoch-000005.safetensors",
        "notes.txt",
    ]


def test_bad_29_another_network_is_refused_before_anything_is_loaded(
    toys, make_options, tmp_path
):
    options = make_options(checkpoint_dir=tmp_path)
    run(toys, options)
    network = toys.linear()
    before = toys.bits(network)
    with pytest.raises(CheckpointError) as caught:
        train(network, toys.squared_error, toys.Regression(9), None, options)
    text = str(caught.value)
    assert "0.bias, 0.weight, 3.bias, 3.weight, bias, weight (6 in all)" in text
    assert str(tmp_path) in text
    assert toys.is_same(toys.bits(network), before)


def test_bad_22_another_fingerprint_is_refused(toys, make_options, tmp_path):
    run(toys, make_options(checkpoint_dir=tmp_path, fingerprint="a1"))
    with pytest.raises(CheckpointError) as caught:
        run(toys, make_options(checkpoint_dir=tmp_path, fingerprint="b2"))
    text = str(caught.value)
    for fragment in ("'a1'", "'b2'", str(tmp_path), "Give another checkpoint_dir"):
        assert fragment in text


def test_bad_25_a_damaged_newest_checkpoint(toys, make_options, tmp_path):
    whole = run(toys, make_options())
    options = make_options(checkpoint_dir=tmp_path)
    with pytest.raises(RuntimeError):
        run(toys, options, {14: die})
    newest = tmp_path / "epoch-000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    expected = r"epoch-000003\.safetensors is damaged.* goes on from epoch-000002"
    with pytest.warns(SciSeqWarning, match=expected):
        resumed = run(toys, options)
    assert_equal_runs(toys, resumed, whole)
