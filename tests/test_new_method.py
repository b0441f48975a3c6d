"""A new generator is one file and one line of the registry; all else follows."""

import json
import os
import subprocess
import sys

TOY = '''
"""Masked diffusion in two passes: even places first, then all others."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from sciseq.generation.base import SequenceGenerator
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.estimates import mean_and_error
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder
from sciseq.generation.sequences.masked_diffusion import (
    MaskedDiffusionLoss,
    whole_bound,
)
from sciseq.parameters import Integer


class EvenFirst(Reveal):
    def __call__(self, logs, tokens, is_hidden, step, seeds, position=None):
        is_even = is_hidden & (torch.arange(tokens.shape[1]) % 2 == 0)
        return is_even.where(is_even.any(dim=1, keepdim=True), is_hidden)


@dataclass(kw_only=True, eq=False, repr=False)
class EvenFirstDiffusion(SequenceGenerator):
    """Generate sequences in two passes."""

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Even places first.", order="Even places, then odd ones.",
        mask="Everybody reads everybody.", corruption="As masked diffusion.",
        objective="As masked diffusion.", decoder="Two passes.", cache="none",
        score="bound", good_for="Tests.", not_for="Anything else.",
    )
    n_estimates: int = 4
    _parameter_rules: ClassVar = {
        **SequenceGenerator._parameter_rules, "n_estimates": Integer(1)
    }

    def _loss(self, seed):
        return MaskedDiffusionLoss(seed, is_complementary=False)

    def _decoder(self, drawing):
        return WholeDecoder(drawing, EvenFirst())

    def _log_likelihood(self, tokens, condition, seed):
        n = self.n_estimates
        return mean_and_error(
            whole_bound(self._network(), tokens, condition, (seed, i, n))
            for i in range(n)
        )
'''
# The one entry; what follows is what a user does with any method.
USE = """
import sciseq.registry as registry
registry.METHODS += (registry.Method(
    "even-first", "toy:EvenFirstDiffusion", "Even first", "none", "none", "generation"
),)

import json, pathlib, sys
import sciseq
from sciseq.cli.app import main
from sciseq.generation.serving import ContinuousBatcher
from sciseq.testing import check_estimator
from toy import EvenFirstDiffusion

def run(*arguments):
    try:
        return main([str(one) for one in arguments]) or 0
    except SystemExit as stopped:
        return stopped.code or 0

folder, said = pathlib.Path(sys.argv[1]), {}
(folder / "data.txt").write_text("ACGTAC\\nACGTTT\\nGGGTAC\\nACGAAC\\n" * 10)
tiny = {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "max_epochs": 1,
        "batch_size": 8, "random_state": 0, "device": "cpu"}
said["methods"] = run("methods")
said["fit"] = run("generate", "fit", folder / "data.txt", "-m", "even-first",
                  "-o", folder / "model")
said["sample"] = run("generate", "sample", folder / "model", "-n", 3,
                     "-o", folder / "new.txt")
said["score"] = run("generate", "score", folder / "model", folder / "new.txt",
                    "-o", folder / "scores.csv")
model = sciseq.load(folder / "model")
said["class"] = type(model).__name__
said["samples"] = model.sample(4, template="A?????", random_state=0)
said["passes"] = model.last_work.n_passes.tolist()
batcher = ContinuousBatcher(model)
ticket = batcher.submit(4, template="A?????", random_state=0)
batcher.run()
said["served"] = batcher.result(ticket)
results = check_estimator(EvenFirstDiffusion(**tiny), kind="generator")
said["checks"] = [one.name for one in results if one.status == "passed"]
print(json.dumps(said))
"""


def test_a_new_generator_is_one_file_and_one_line(tmp_path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert [said[one] for one in ("methods", "fit", "sample", "score")] == [0] * 4
    assert "even-first" in done.stdout
    assert said["class"] == "EvenFirstDiffusion"
    assert said["passes"] == [2] * 4
    assert said["served"] == said["samples"]
    assert all(one.startswith("A") and len(one) == 6 for one in said["samples"])
    assert len(said["checks"]) >= 36
    assert (tmp_path / "scores.csv").read_text().count("\n") == 4
