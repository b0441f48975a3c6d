"""The Triton backend: in the interpreter, compiled without a GPU, and on one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sciseq.errors import MissingDependencyError
from sciseq.ops.selective_scan import triton_backend
from sciseq.ops.selective_scan.groups import scan_by_group
from sciseq.ops.selective_scan.reference import selective_scan_reference

reference = scan_by_group(selective_scan_reference)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU"
)


def run_python(*arguments, **variables):
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_cases(marked):
    cases = Path(__file__).with_name("triton_cases.py")
    # This process may have imported triton already, which then cannot interpret.
    output = run_python(
        "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider",
        "-m", marked, cases, TRITON_INTERPRET="1",
    )  # fmt: skip
    assert " passed" in output
    assert "skipped" not in output


@needs_triton
def test_cases_in_the_interpreter():
    run_cases("not slow")


@needs_triton
@pytest.mark.slow
def test_slow_cases_in_the_interpreter():
    run_cases("slow")


@needs_triton
def test_cannot_run_here():
    with pytest.raises(MissingDependencyError, match="NVIDIA and AMD"):
        triton_backend.load("mps")
    if os.environ.get("TRITON_INTERPRET") != "1":
        with pytest.raises(MissingDependencyError, match="TRITON_INTERPRET=1"):
            triton_backend.load("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependencyError, match="no GPU"):
            triton_backend.load("cuda")


def test_without_triton_the_modules_can_be_read(monkeypatch):
    for name in ("triton", *(one for one in sys.modules if one.startswith("triton."))):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MissingDependencyError, match=r"imported.*pip install triton"):
        triton_backend.load("cuda")
    # Test collection and documentation import every module.
    path = Path(triton_backend.__file__).with_name("triton_kernel.py")
    spec = importlib.util.spec_from_file_location("kernel_without_triton", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.triton is None


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from sciseq.ops.selective_scan import triton_backend, triton_kernel

class NoDevice:  # enough of a driver to compile for
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_current_target(self): return GPUTarget("cuda", 80, 32)

class Compiled:
    def __init__(self, kernel): self.kernel = kernel
    def __getitem__(self, grid):
        def launch(*arguments, **options):
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            texts.append(made.asm["ptx"])
        return launch

driver.set_active(NoDevice())
for name in ("scan_forward", "scan_backward"):
    setattr(triton_kernel, name, Compiled(getattr(triton_kernel, name)))
for dtype in (torch.float32, torch.float64):
    texts = []
    u = torch.ones(1, 40, 33, dtype=dtype)
    B = torch.ones(1, 2, 3, 33, dtype=dtype)
    y, kept = triton_backend._compute(u, u, u[0, :, :3], B, B, u[0, :, 0], 2, True)
    inputs = (u, u, u[0, :, :3], B, B, u[0, :, 0], kept)
    triton_backend._compute_gradients(y, *inputs, 2)
    number = "f32" if dtype == torch.float32 else "f64"
    print(["atom" in text for text in texts], [f"fma.rn.{number}" in t for t in texts])
"""


@needs_triton
@pytest.mark.slow
def test_kernels_compile_without_a_gpu(tmp_path):
    variables = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    output = run_python("-c", COMPILE, **variables)
    # Two kernels for two dtypes, and no atomic addition, whose order would vary.
    assert output == "[False, False] [True, True]\n" * 2


# On a GPU


def make_inputs(batch, channel, state, length, group, *, dtype, layout):
    generator = torch.Generator().manual_seed(0)

    def sequence(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.mT.contiguous().mT if layout == "channels" else values

    inputs = [
        sequence(batch, channel, length),
        torch.nn.functional.softplus(sequence(batch, channel, length) - 2.0),
        -torch.exp(sequence(channel, state)),
        sequence(batch, group, state, length),
        sequence(batch, group, state, length),
        sequence(1, channel)[0],
    ]
    return [one.to("cuda", dtype).requires_grad_() for one in inputs]


def values_and_gradients(function, inputs, reverse):
    y = function(*inputs, reverse)
    weights = torch.cos(torch.arange(y.numel(), device="cuda").double())
    loss = (y.double() * weights.reshape(y.shape)).sum()
    return [y.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.gpu
@needs_triton
@needs_gpu
@pytest.mark.parametrize("layout", ["channels", "tokens"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize(
    "shape", [(3, 100, 16, 331, 2), (32, 512, 2, 11, 2), (1, 5, 64, 1, 1)]
)
def test_equals_float64_on_a_gpu(shape, dtype, tolerance, layout):
    scan = triton_backend.load("cuda")
    inputs = make_inputs(*shape, dtype=dtype, layout=layout)
    reverse = (False, True)[: shape[-1]]
    exact = [one.detach().double().requires_grad_() for one in inputs]
    truths = values_and_gradients(reference, exact, reverse)
    found = values_and_gradients(scan, inputs, reverse)
    for got, want in zip(found, truths, strict=True):
        error = (got.double() - want).abs().max()
        assert error <= tolerance * want.abs().max()
    again = values_and_gradients(scan, inputs, reverse)
    assert all(map(torch.equal, found, again))
