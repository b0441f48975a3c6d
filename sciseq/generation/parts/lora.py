"""Low-rank adapters (LoRA): fine-tuning a network through a few small matrices.

Symbols: W (out, in) weight of a linear layer, r rank, A (r, in), B (out, r), α scale.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciseq.errors import InputError
from sciseq.nn.dropout import Dropout
from sciseq.nn.initialization import build_network

__all__ = ["AdaptedLinear", "LowRankAdapter", "insert_adapters", "merge_adapters"]


class LowRankAdapter(nn.Module):
    r"""What is added to the output of one linear layer.

    .. math:: x \mapsto \frac{\alpha}{r} B A \, \mathrm{dropout}(x)

    A starts Gaussian with standard deviation :math:`1 / \sqrt{d_{in}}`, B at zero, so
    that nothing is added at first.

    Parameters
    ----------
    d_in, d_out : int
        Widths of the layer's input and output.
    rank : int
        Columns of B and rows of A, r.
    alpha : float
        Scale α.
    dropout : float
        Probability of dropping an input of the adapter, in [0, 1).

    Attributes
    ----------
    A : nn.Parameter, shape (r, d_in)
        Map down.
    B : nn.Parameter, shape (d_out, r)
        Map up.
    """

    def __init__(
        self, d_in: int, d_out: int, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, d_in))
        self.B = nn.Parameter(torch.empty(d_out, rank))
        self.dropout = Dropout(dropout)
        self.scale = alpha / rank

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw A, and set B to zero."""
        nn.init.normal_(self.A, std=1 / math.sqrt(self.A.shape[1]), generator=generator)
        nn.init.zeros_(self.B)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (..., d_in) to what is added (..., d_out)."""
        return self.scale * F.linear(F.linear(self.dropout(x), self.A), self.B)

    def weight(self) -> Tensor:
        """Return the matrix of the whole map, (d_out, d_in)."""
        return self.scale * (self.B @ self.A)


class AdaptedLinear(nn.Module):
    """A linear layer and its adapter.

    Parameters
    ----------
    base : nn.Linear
        The layer; its weights stay as they are.
    adapter : LowRankAdapter
        What is added to its output.
    """

    def __init__(self, base: nn.Linear, adapter: LowRankAdapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (..., d_in) to (..., d_out)."""
        output: Tensor = self.base(x) + self.adapter(x)
        return output


def insert_adapters(
    network: nn.Module,
    generator: torch.Generator,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.05,
    layers: Sequence[str] | None = None,
) -> nn.ModuleDict:
    r"""Give linear layers of a network low-rank adapters, and freeze everything else.

    .. math:: W' = W + \frac{\alpha}{r} B A

    Each adapter has :math:`r (d_{in} + d_{out})` numbers. The network computes what it
    did before until they are trained.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    generator : torch.Generator
        Source of the matrices A, on the CPU.
    rank : int, default=16
        Rank r of what is added.
    alpha : float, default=32.0
        Scale α.
    dropout : float, default=0.05
        Dropout of the adapters' input, in training.
    layers : sequence of str, optional
        Layers to adapt, by the last part of their name or by their full name; by
        default every ``nn.Linear``.

    Returns
    -------
    nn.ModuleDict
        The adapters alone, by the path of their layer, such as ``"/decoder/q_proj"``:
        what to train, and what to keep of a trained network. Setting it to training
        mode leaves the rest of the network as it was.

    Raises
    ------
    InputError
        When no layer is found, a name fits none, the network has adapters already, or
        ``rank`` is below 1.

    Notes
    -----
    The projections of ``nn.MultiheadAttention`` cannot be adapted: that module reads
    their weights and never calls them.

    References
    ----------
    Hu et al., LoRA, arXiv:2106.09685.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    >>> generator = torch.Generator().manual_seed(0)
    >>> adapters = insert_adapters(network, generator, rank=2, layers=["0"])
    >>> sum(one.numel() for one in network.parameters() if one.requires_grad)
    32
    >>> merge_adapters(network)
    >>> network
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=8, bias=True)
    )
    """
    if rank < 1:
        raise InputError(f"rank is {rank}, must be at least 1", where="rank")
    if any(isinstance(one, AdaptedLinear) for one in network.modules()):
        raise InputError(
            "the network has adapters already",
            where="insert_adapters",
            hint="Call merge_adapters(network) first.",
        )
    places = list(_linear_layers(network))
    chosen = [place for place in places if layers is None or _is_named(place, layers)]
    _check_names(layers, [name for name, _, _ in places], [one[0] for one in chosen])
    network.requires_grad_(False)
    made: dict[nn.Linear, AdaptedLinear] = {}  # one adapter for a layer used twice
    adapters = nn.ModuleDict()
    for name, parent, attribute in chosen:
        base = getattr(parent, attribute)
        if base not in made:
            adapter = _make_adapter(base, rank, alpha, dropout, generator)
            made[base] = AdaptedLinear(base, adapter)
            made[base].train(base.training)
            adapters[_key(name)] = adapter
        setattr(parent, attribute, made[base])
    return adapters


def merge_adapters(network: nn.Module) -> None:
    """Add every adapter to the weight of its layer, and take the adapters out.

    The outputs stay the same up to rounding, and the network is as fast as without
    adapters. Weights stay frozen.

    Parameters
    ----------
    network : nn.Module
        Changed in place. Weights that other networks share are not written to.
    """
    adapted = [one for one in network.modules() if isinstance(one, AdaptedLinear)]
    for one in adapted:
        merged = one.base.weight.detach() + one.adapter.weight().detach()
        one.base.weight = nn.Parameter(merged, requires_grad=False)
    for parent in list(network.modules()):
        for attribute, child in list(parent._modules.items()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, attribute, child.base)


Place = tuple[str, nn.Module, str]  # full name, parent, attribute of the parent


def _key(name: str) -> str:
    # A dict of modules refuses dots, and names such as "keys" that it has itself.
    return "/" + name.replace(".", "/")


def _linear_layers(network: nn.Module) -> Iterator[Place]:
    for prefix, parent in network.named_modules():
        if isinstance(parent, nn.MultiheadAttention):
            continue
        for attribute, child in parent._modules.items():
            if isinstance(child, nn.Linear):
                yield f"{prefix}.{attribute}".lstrip("."), parent, attribute


def _is_named(place: Place, layers: Sequence[str]) -> bool:
    name, _, attribute = place
    return name in layers or attribute in layers


def _check_names(
    layers: Sequence[str] | None, found: list[str], chosen: list[str]
) -> None:
    ends = sorted({name.rpartition(".")[2] for name in found})
    known = {*found, *ends}
    wrong = [name for name in layers or () if name not in known]
    if wrong or not chosen:
        raise InputError(
            f"no linear layer is called {', '.join(map(repr, wrong))}"
            if wrong
            else "the network holds no linear layer that could be adapted",
            where="layers",
            hint=f"The linear layers are called {', '.join(ends)}." if ends else None,
        )


def _make_adapter(
    base: nn.Linear, rank: int, alpha: float, dropout: float, generator: torch.Generator
) -> LowRankAdapter:
    adapter = build_network(
        lambda: LowRankAdapter(
            base.in_features, base.out_features, rank, alpha, dropout
        ),
        generator,
    )
    return adapter.to(device=base.weight.device, dtype=base.weight.dtype)
