"""Parts in this process and on several processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import part_functions as work
import pytest
import threadpoolctl  # noqa: F401  (sets an environment variable when imported)
import torch

from sciseq.errors import InputError, InputTypeError
from sciseq.jobs.executor_joblib import PARTS_PER_WORKER
from sciseq.jobs.executors import Failure, run_parts


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def two_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    return before


# --- In this process -------------------------------------------------------------


def test_the_serial_path_loads_no_engine():
    code = (
        "import sys; from sciseq.jobs.executors import run_parts; "
        "import part_functions as work; "
        "print(list(run_parts(work.double, 2, iter([1, 2])))); "
        "print({'joblib', 'dask', 'distributed', 'torch', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert done.stdout.splitlines() == ["[(0, 2), (1, 4)]", "set()"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_threads_are_those_asked_for_and_come_back(no_global_side_effects):
    before = two_torch_threads()
    try:
        with no_global_side_effects():
            found = run_parts(work.thread_counts, None, range(2), threads=1)
            assert next(found) == (0, (1, {1}))
            # The caller has its own threads between two parts.
            assert torch.get_num_threads() == 2
            assert list(found) == [(1, (1, {1}))]
        # Nothing but the limit makes it one.
        assert work.thread_counts(None, None)[0] == 2
    finally:
        torch.set_num_threads(before)


def test_an_exception_is_a_result():
    found = dict(run_parts(work.reciprocal, 6.0, [1, 0, 3]))
    assert (found[0], found[2]) == (6.0, 2.0)
    assert isinstance(found[1], Failure)
    assert found[1].type == "ZeroDivisionError"
    assert "part_functions.py" in found[1].traceback


def test_ctrl_c_is_not_a_result():
    def interrupted(shared, part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run_parts(interrupted, None, [1]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"threads": 0}, "threads is 0, must be at least 1"),
        ({"retries": -1}, "retries is -1, must be at least 0"),
        ({"local_workers": 0}, "local_workers is 0, must be at least 1"),
        ({"scheduler": "tcp://a:1", "local_workers": 2}, "has its own workers"),
    ],
)
def test_wrong_numbers_are_refused_at_the_call(wrong, message):
    with pytest.raises(InputError, match=message):
        run_parts(work.double, 2, [], **wrong)


# --- On several processes ----------------------------------------------------------


def test_two_processes_give_the_same_and_read_no_further_than_needed():
    n_read = 0

    def parts():
        nonlocal n_read
        for part in [*range(12), 0]:
            n_read += 1
            yield part

    found = {}
    for index, result in run_parts(work.reciprocal, 6.0, parts(), n_jobs=2):
        assert n_read <= len(found) + 1 + 2 * PARTS_PER_WORKER
        found[index] = result
    assert {found.pop(0).type, found.pop(12).type} == {"ZeroDivisionError"}
    assert found == {number: 6.0 / number for number in range(1, 12)}


def test_functions_and_data_that_no_worker_could_import():
    local = {"factor": 3}
    found = run_parts(lambda shared, part: shared["factor"] * part, local, [1, 2],
                      n_jobs=2)  # fmt: skip
    assert dict(found) == {0: 3, 1: 6}


def test_threads_in_a_process():
    found = dict(run_parts(work.thread_counts, torch.zeros(1), [0], n_jobs=2))
    assert found == {0: (1, {1})}


def test_what_cannot_be_sent():
    found = dict(run_parts(work.unsendable, None, range(3), n_jobs=2))
    assert (found[0], found[2], found[1].type) == (0, 2, "TypeError")
    open_generator = (one for one in ())
    with pytest.raises(InputTypeError, match="part 0 cannot be sent"):
        next(run_parts(work.double, 2, [open_generator], n_jobs=2))
    with pytest.raises(InputTypeError, match="what is shared, cannot be sent"):
        next(run_parts(work.double, open_generator, [1], n_jobs=2))


def test_an_error_while_parts_are_read_reaches_the_caller():
    def parts():
        yield 1
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="source is gone"):
        list(run_parts(work.double, 2, parts(), n_jobs=2))


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    found = dict(run_parts(work.die_once, tmp_path, range(8), n_jobs=2))
    assert (tmp_path / "killed").exists()
    assert found == {number: number for number in range(8)}


def test_a_part_that_kills_its_worker_is_blamed_alone():
    found = dict(run_parts(work.die_always, None, range(8), n_jobs=2, retries=1))
    failure = found.pop(3)
    assert (failure.type, failure.traceback) == ("WorkerDied", "")
    assert "died 2 times" in failure.message
    assert "SIGKILL(-9)" in failure.message
    assert found == {number: number for number in range(8) if number != 3}


def test_no_process_is_left_when_the_results_are_closed(tmp_path):
    results = run_parts(work.wait_long, tmp_path, [0, 1, 1, 1], n_jobs=2)
    next(results)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    processes = [int(path.name) for path in tmp_path.iterdir()]
    assert all(map(is_alive, processes))
    results.close()
    assert not any(map(is_alive, processes))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_run_is_killed(tmp_path, how):
    code = (
        "import sys; from sciseq.jobs.executors import run_parts; "
        "import part_functions as work; "
        "list(run_parts(work.wait_long, sys.argv[1], [1, 1, 1], n_jobs=2))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        # A shell may have started the tests with Ctrl-C ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    if how == signal.SIGINT:  # as from a terminal: to all of its processes
        os.killpg(run.pid, how)
    else:
        run.kill()
    _, errors = run.communicate(timeout=60)
    processes = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(map(is_alive, processes)))
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1  # the workers say nothing


def test_shared_data_is_read_once_by_each_process(tmp_path):
    found = run_parts(
        lambda shared, part: (os.getpid(), id(shared)), Path("x"), range(8), n_jobs=2
    )
    places = [result for _, result in found]
    assert len(set(places)) == len({process for process, _ in places})
