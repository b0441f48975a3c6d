"""Functions for workers: they must be importable there, so they are no tests' own."""

import os
import signal
import time
from pathlib import Path


def double(shared, part):
    return shared * part


def reciprocal(shared, part):
    return shared / part


def thread_counts(shared, part):
    import torch
    from threadpoolctl import threadpool_info

    return torch.get_num_threads(), {one["num_threads"] for one in threadpool_info()}


def process_id(shared, part):
    time.sleep(0.02)  # so that one worker alone does not do it all
    return os.getpid()


def die_once(folder, part):
    """Kill the own process at part 3, the first time."""
    mark = Path(folder, "killed")
    if part == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def die_always(shared, part):
    if part == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def unsendable(shared, part):
    return (one for one in ()) if part == 1 else part


def wait_long(folder, part):
    """Say which process this is, and stay."""
    Path(folder, str(os.getpid())).touch()
    if part:
        time.sleep(60)
    return part
