"""What torch estimators add: device and precision, training, pickling, weights.

Fitted networks live in ``network_``. Pickles, copies and saved files always hold CPU
weights, so that they open on a machine without a GPU.
"""

import hashlib
import json
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sciseq.base import SequenceEstimator
from sciseq.errors import InputError
from sciseq.nn.initialization import build_network
from sciseq.parameters import (
    PATH,
    AnyOf,
    Boolean,
    Instance,
    Integer,
    Nothing,
    Option,
    Real,
)
from sciseq.parameters import Rule as ParameterRule
from sciseq.training import (
    Batches,
    LossFunction,
    TrainingOptions,
    TrainingResult,
    generator_for,
    resolve_device,
    resolve_seed,
    train,
)
from sciseq.training.allocations import out_of_memory_named
from sciseq.training.memory_size import MemorySize, parse_bytes

__all__ = ["SCHEDULES", "TRAINING_RULES", "TorchEstimator", "data_fingerprint"]

# Epochs are counted from 1; the factor multiplies learning_rate.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda epoch, max_epochs: 1.0,
    # The long-horizon forecasting papers keep the rate for two epochs, then halve it.
    "halving": lambda epoch, max_epochs: 0.5 ** max(0, epoch - 2),
    "cosine": lambda epoch, max_epochs: (
        0.5 * (1 + float(np.cos(np.pi * (epoch - 1) / max_epochs)))
    ),
}

TRAINING_RULES: dict[str, ParameterRule] = {
    "dropout": Real(0.0, 1.0, open_high=True),
    "learning_rate": Real(0.0, open_low=True),
    "learning_rate_schedule": Option(*SCHEDULES),
    "weight_decay": Real(0.0),
    "batch_size": Integer(1),
    "max_epochs": Integer(1),
    "patience": AnyOf(Nothing(), Integer(1)),
    "random_state": AnyOf(
        Nothing(),
        Integer(0),
        Instance("a NumPy generator", np.random.RandomState, np.random.Generator),
    ),
    "device": Instance(
        "a device name such as 'cpu' or 'cuda:1', or a torch.device", str, torch.device
    ),
    "precision": Option("float32", "bfloat16", "float64"),
    "verbose": Integer(0),
    "checkpoint_dir": PATH,
    "memory_limit": AnyOf(Nothing(), MemorySize()),
    "compile": Boolean(),
    "n_devices": Integer(1),
    "n_nodes": Integer(1),
}

# What a run may change and still continue from its checkpoints.
_NOT_IN_FINGERPRINT = (
    "checkpoint_dir",
    "compile",
    "device",
    "max_epochs",
    "memory_limit",
    "n_devices",
    "n_nodes",
    "patience",
    "verbose",
)


class TorchEstimator(SequenceEstimator):
    """Base of estimators that train a torch network."""

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = TRAINING_RULES
    # Whether parts of the computation are in float64, whatever the precision.
    _needs_float64: ClassVar[bool] = False

    learning_rate: float
    learning_rate_schedule: str
    weight_decay: float = 0.0
    batch_size: int
    max_epochs: int
    patience: int | None
    random_state: Any
    device: Any
    precision: str
    verbose: int
    checkpoint_dir: str | os.PathLike[str] | None
    memory_limit: str | int | None
    compile: bool = False
    n_devices: int = 1
    n_nodes: int = 1

    network_: nn.Module

    @abstractmethod
    def _make_network(self) -> nn.Module:
        """Build the network from parameters and fitted attributes; no training."""

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        if self.checkpoint_dir is not None and not Integer(0).allows(self.random_state):
            problems.append(
                f"random_state={self.random_state!r} must be an integer with "
                "checkpoint_dir: a resumed run needs the same draws"
            )
        if self._is_distributed() and not re.fullmatch(
            "auto|cpu|cuda", str(self.device)
        ):
            problems.append(
                f"device={str(self.device)!r} is one device, and n_devices="
                f"{self.n_devices} with n_nodes={self.n_nodes} asks for more: give "
                "'cpu', 'cuda' or 'auto'"
            )
        return problems

    def _train(
        self,
        loss: LossFunction,
        make_batches: Callable[[torch.device], tuple[Batches, Batches | None]],
        *,
        tokens_per_item: int,
        fingerprint: str,
        epochs: int | None = None,
        run: str = "",
    ) -> None:
        """Build and train the network; sets ``network_`` and what is known of it.

        A fit that trains more than once names its later runs, and says how many
        ``epochs`` they have instead of ``max_epochs``.
        """
        seed = resolve_seed(self.random_state)
        network = build_network(self._make_network, generator_for(seed, "weights"))
        if self.precision == "float64":
            network = network.double()
        self._load_initial_weights(network)
        self.n_parameters_ = sum(one.numel() for one in network.parameters())
        epochs = self.max_epochs if epochs is None else epochs
        batches = make_batches(torch.device("cpu"))
        device = resolve_device(
            self.device,
            work=6.0 * self.n_parameters_ * tokens_per_item * epochs * _items(batches),
            precision=self._device_precision(),
        )
        options = self._training_options(seed, device, epochs, fingerprint, run=run)
        if self._is_distributed():
            del batches
            result = self._train_distributed(network, loss, make_batches, options)
        else:
            if device.type != "cpu":
                with out_of_memory_named("the training data", device):
                    batches = make_batches(device)
            result = train(network, loss, *batches, options)
        self.network_ = network
        self.device_ = str(next(network.parameters()).device)
        self.history_ = result.history
        self.best_epoch_ = result.best_epoch
        self.stopped_ = result.stopped
        self.n_epochs_ = len(result.history)
        self.micro_batch_size_ = result.part_size
        self.recomputed_layers_ = result.recomputed_layers
        self.estimated_memory_ = result.estimated_memory

    def _is_distributed(self) -> bool:
        return self.n_devices > 1 or self.n_nodes > 1

    def _train_distributed(
        self,
        network: nn.Module,
        loss: LossFunction,
        make_batches: Callable[[torch.device], tuple[Batches, Batches | None]],
        options: TrainingOptions,
    ) -> TrainingResult:
        from sciseq.training.distributed import train_distributed

        n_devices, n_nodes = int(self.n_devices), int(self.n_nodes)
        return train_distributed(
            network, loss, make_batches, options, n_devices=n_devices, n_nodes=n_nodes
        )

    def _initial_weights(self) -> Mapping[str, torch.Tensor] | None:
        """Weights to start from instead of random ones, or None."""
        return None

    def _load_initial_weights(self, network: nn.Module) -> None:
        weights = self._initial_weights()
        if weights is None:
            return
        own = {name: one.shape for name, one in network.state_dict().items()}
        if {name: one.shape for name, one in weights.items()} != own:
            anew = ", or set warm_start=False" if hasattr(self, "warm_start") else ""
            raise InputError(
                "the training goes on from a network of another shape",
                where=f"parameters of {type(self).__name__}",
                hint=f"Keep the parameters of the network{anew}.",
            )
        network.load_state_dict(weights)

    def _training_options(
        self,
        seed: int,
        device: torch.device,
        epochs: int,
        fingerprint: str,
        *,
        run: str,
    ) -> TrainingOptions:
        schedule, limit = SCHEDULES[self.learning_rate_schedule], self.memory_limit
        folder = None if self.checkpoint_dir is None else Path(self.checkpoint_dir)
        return TrainingOptions(
            learning_rate=float(self.learning_rate),
            batch_size=int(self.batch_size),
            max_epochs=int(epochs),
            patience=self.patience,
            schedule=lambda epoch: schedule(epoch, epochs),
            weight_decay=float(self.weight_decay),
            seed=seed,
            device=device,
            precision=self.precision,
            verbose=int(self.verbose),
            # One folder holds one run.
            checkpoint_dir=folder / run if folder and run else folder,
            fingerprint=self._fingerprint(fingerprint),
            memory_limit=limit if limit is None else parse_bytes(limit),
            compile=bool(self.compile),
        )

    def _fingerprint(self, data: str) -> str:
        """Hash of everything that a resumed run must share with its beginning."""
        params = {
            name: repr(value)
            for name, value in sorted(self.get_params(deep=False).items())
            if name not in _NOT_IN_FINGERPRINT
        }
        if self.learning_rate_schedule == "cosine":
            params["max_epochs"] = repr(self.max_epochs)
        weights = self._initial_weights()
        if weights is not None:
            # A run that goes on from other weights is another run.
            data += data_fingerprint(one.cpu().numpy() for one in weights.values())
        text = json.dumps([type(self).__name__, params, data])
        return hashlib.sha256(text.encode()).hexdigest()

    # ----------------------------------------------------- using the network

    def _device_precision(self) -> str:
        """Return the largest precision that the device must have."""
        return "float64" if self._needs_float64 else self.precision

    def _run_device(self) -> torch.device:
        """Device to compute on: the one asked for, where this machine has it."""
        here = next(self.network_.parameters()).device
        if str(self.device) in ("auto", str(here)):
            return here
        try:
            wanted = resolve_device(self.device, precision=self._device_precision())
        except InputError:
            # The model came from a machine with another device; its weights work here.
            return here
        if wanted != here:
            self.network_.to(wanted)
        return wanted

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext()

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32

    # ------------------------------------------------- pickling and saving

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        network = state.get("network_")
        if network is not None and next(network.parameters()).device.type != "cpu":
            state["network_"] = deepcopy(network).cpu()
            state["device_"] = "cpu"
        return state

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, _ = super()._get_saved_state()
        network = attributes.pop("network_", None)
        if network is None:
            return attributes, {}
        attributes["device_"] = "cpu"
        weights = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in network.state_dict().items()
        }
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        super()._set_saved_state(attributes, {})
        if not weights:
            return
        self._check_saved_weights(weights)
        # Every number is about to be overwritten, so any generator will do.
        network = build_network(self._make_network, generator_for(0, "weights"))
        if self.precision == "float64":
            network = network.double()
        own = network.state_dict()
        network.load_state_dict(
            {
                name: torch.from_numpy(np.array(weights[name])).to(tensor.dtype)
                for name, tensor in own.items()
            }
        )
        self.network_ = network.eval()

    def _check_saved_weights(self, weights: Mapping[str, Any]) -> None:
        """Compare names and shapes with the network, before it has any memory."""
        from sciseq.persistence import check_weights

        n_layers = getattr(self, "n_layers", 0)
        try:
            # A layer without an array is none; a crafted number would build forever.
            if n_layers > len(weights):
                raise ValueError(f"{len(weights)} arrays for n_layers={n_layers!r}")
            with torch.device("meta"):
                own = self._make_network().state_dict()
        except (ArithmeticError, AssertionError, RuntimeError) as error:
            # A size that torch cannot count; errors of other kinds are told by load.
            raise ValueError(f"there is no such network: {error}") from error
        check_weights({name: tuple(one.shape) for name, one in own.items()}, weights)


def _items(batches: tuple[Batches, Batches | None]) -> int:
    return sum(one.n_items for one in batches if one is not None)


def data_fingerprint(arrays: Iterable[Any]) -> str:
    """Hash of training data: shapes, types and every value.

    Examples
    --------
    >>> data_fingerprint([np.zeros(2)]) == data_fingerprint([np.zeros(3)])
    False
    """
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
