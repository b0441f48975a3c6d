"""The side of peptide_peers.py that runs Casanovo, in an environment of its own.

Without arguments it reads one JSON request per line and answers each with one line that
begins with ``ANSWER``. With arguments it is Casanovo's own command line. Imports
nothing of sciseq.

Random weights do not end a peptide by themselves. So the scores of the end, of the
padding and of what stands at an N-terminus are set: every beam goes on for ``LENGTH``
residues, then stops. Nothing else of Casanovo is changed.
"""

import json
import os
import sys
import time
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from casanovo.casanovo import main as command_line
from casanovo.config import Config
from casanovo.denovo.model import Spec2Pep
from casanovo.denovo.transformers import PeptideDecoder
from depthcharge.tokenizers import PeptideTokenizer
from lightning.pytorch import __version__ as lightning_version

LENGTH = int(os.environ.get("PEPTIDE_LENGTH", "12"))
CALLS = {"calls": 0, "rows": 0}


def force_length() -> None:
    """Let the decoder score the end as described above, and count its calls."""
    plain = PeptideDecoder.forward

    def forward(self: Any, tokens: Any, **options: Any) -> torch.Tensor:
        scores = plain(self, tokens=tokens, **options)
        tokenizer = self.tokenizer
        stop = tokenizer.stop_int
        terminal = [
            place for one, place in tokenizer.index.items() if one.endswith("]-")
        ]
        scores[..., [0, stop, *terminal]] = -100.0
        scores[:, LENGTH:, stop] = 100.0
        CALLS["calls"] += 1
        CALLS["rows"] += len(scores)
        return scores

    PeptideDecoder.forward = forward


def make_model(seed: int = 0) -> Spec2Pep:
    """Build the model of the default settings with random weights."""
    torch.manual_seed(seed)
    settings = Config()
    tokenizer = PeptideTokenizer(
        residues=settings.residues,
        replace_isoleucine_with_leucine=True,
        reverse=True,
        start_token=None,
        stop_token="$",
    )
    names = ("dim_model", "n_head", "dim_feedforward", "n_layers", "dropout",
             "max_charge", "min_peptide_len")  # fmt: skip
    sizes = {name: getattr(settings, name) for name in names}
    model = Spec2Pep(**sizes, max_peptide_len=LENGTH + 1, tokenizer=tokenizer)
    model.decoder.tokenizer = tokenizer
    return model.eval()


def store(request: dict[str, Any]) -> dict[str, Any]:
    """Write random weights and the settings that go with them."""
    model = make_model()
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": lightning_version,
    }
    torch.save(content, request["checkpoint"])
    settings = yaml.safe_load((files("casanovo") / "config.yaml").read_text())
    settings |= {
        "max_peptide_len": LENGTH + 1,
        "predict_batch_size": request["batch"],
        "n_beams": request["beams"],
        "accelerator": "cpu",
    }
    Path(request["settings"]).write_text(yaml.safe_dump(settings))
    return {}


def batches_of(request: dict[str, Any]) -> list[list[torch.Tensor]]:
    """Read the spectra in their order, padded with zeros to the longest of a batch."""
    stored = np.load(request["spectra"])
    mass, charge = stored["mass"], stored["charge"]
    precursors = np.stack([mass, charge, mass / charge + 1.007276], axis=1)
    batches = []
    for first in range(0, len(mass), request["batch"]):
        part = slice(first, first + request["batch"])
        most = int((stored["mz"][part] > 0).sum(axis=1).max())
        arrays = stored["mz"][part, :most], stored["intensity"][part, :most]
        batches.append(
            [torch.from_numpy(np.float32(one)) for one in (*arrays, precursors[part])]
        )
    return batches


def decode(request: dict[str, Any], model: Spec2Pep) -> dict[str, Any]:
    """Decode all spectra once."""
    model.n_beams = request["beams"]
    batches = batches_of(request)
    CALLS.update(calls=0, rows=0)
    found, is_half = [], request["precision"] == "bfloat16"
    # Torch's fused encoder layer fails with autocast.
    torch.backends.mha.set_fastpath_enabled(not is_half)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, is_half):
        begun = time.perf_counter(), time.process_time()
        for batch in batches:
            found += model.beam_search_decode(*batch)
        ended = time.perf_counter(), time.process_time()
    return {
        "wall": ended[0] - begun[0],
        "processor": ended[1] - begun[1],
        "found": sum(bool(one) for one in found),
        "calls": CALLS["calls"] / len(batches),
        "parameters": sum(one.numel() for one in model.parameters()),
    }


def serve() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    model = make_model()
    for line in sys.stdin:
        request = json.loads(line)
        found = store(request) if "checkpoint" in request else decode(request, model)
        sys.stdout.write(f"ANSWER {json.dumps(found)}\n")
        sys.stdout.flush()


def run_command() -> None:
    """Run Casanovo's command line, its decoder's tokenizer known to the decoder."""
    torch.set_num_threads(1)
    plain = Spec2Pep.on_predict_start

    def on_predict_start(self: Any) -> None:
        self.decoder.tokenizer = self.tokenizer
        plain(self)

    Spec2Pep.on_predict_start = on_predict_start
    command_line()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    force_length()
    if len(sys.argv) > 1:
        run_command()
    else:
        serve()
