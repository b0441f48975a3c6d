"""How fast this machine runs vector multiply-adds, and copies memory."""

import ctypes
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import torch
from measuring import Cell, elapsed

LANES = 16  # of float32 in the 64 bytes that the kernel calls a vector

# Independent chains of multiply-adds, enough of them to fill the pipelines and few
# enough to stay in registers.
PROBE = """
typedef float vec __attribute__((vector_size(64)));
#ifdef __AVX512F__
#define CHAINS 12
#else
#define CHAINS 5
#endif
int chains(void) { return CHAINS; }
float probe(long n, float factor)
{
    vec a[CHAINS], m = (vec){} + factor;
    for (int k = 0; k < CHAINS; k++)
        a[k] = (vec){} + (float)k;
    for (long i = 0; i < n; i++)
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS; k++)
            a[k] = a[k] * m + m;
    for (int k = 1; k < CHAINS; k++)
        a[0] += a[k];
    return a[0][0];
}
"""


def measure_floor(cell: Cell) -> Cell:
    """Vector multiply-adds and bytes per second, the best of some tries."""
    n_threads, size = torch.get_num_threads(), cell["size"]
    a, b = torch.randn(size, size), torch.randn(size, size)
    product = min(elapsed(lambda: a @ b) for _ in range(10))
    here, there = torch.randn(cell["mib"] * 2**18), torch.empty(cell["mib"] * 2**18)
    copy = min(elapsed(lambda: there.copy_(here)) for _ in range(10))
    found = {
        "from_matrix_product": 2 * size**3 / product / 2 / LANES,
        "bytes_per_second": 2 * here.numel() * 4 / copy,
    }
    compiled = probe_rate(n_threads, cell["tries"])
    return found if compiled is None else {**found, "from_c_probe": compiled}


def probe_rate(n_threads: int, tries: int) -> float | None:
    """64-byte multiply-adds per second of a small C program; None without compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "probe.c"), Path(folder, "probe.so")
        source.write_text(PROBE)
        options = ["-O2", "-march=native", "-shared", "-fPIC", "-Wno-psabi"]
        made = subprocess.run([compiler, *options, source, "-o", built], check=False)
        if made.returncode:
            return None
        library = ctypes.CDLL(str(built))  # calls to it let other threads run
    library.probe.argtypes = [ctypes.c_long, ctypes.c_float]
    n = 20_000_000
    best = 0.0
    for _ in range(tries):
        threads = [
            threading.Thread(target=library.probe, args=(n, 0.5))
            for _ in range(n_threads)
        ]
        start = time.perf_counter()
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        seconds = time.perf_counter() - start
        best = max(best, n_threads * n * library.chains() / seconds)
    return best
