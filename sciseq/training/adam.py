"""Adam as torch computes it in one pass, without its overhead for each tensor.

torch's fused Adam adds one to a counter of steps for every tensor of weights, which on
a CPU takes as long as the pass itself for a small network. All tensors that train from
the beginning share one counter here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FusedAdam"]


class FusedAdam(torch.optim.Adam):
    r"""Adam, or AdamW, with one counter of steps.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        w &\leftarrow w - \eta \, \frac{m / (1 - \beta_1^t)}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    params : iterable
        Tensors, or groups of them, as in :class:`torch.optim.Adam`.
    lr : float
        Learning rate :math:`\eta`.
    decoupled_weight_decay : bool, default False
        Whether ``weight_decay`` of a group acts on the weights (AdamW) rather than on
        the gradients.

    Notes
    -----
    Weights, moments and ``state_dict`` equal those of ``torch.optim.Adam(fused=True)``
    bit for bit, as long as every tensor has a gradient in every step. Kingma and Ba,
    arXiv:1412.6980; Loshchilov and Hutter, arXiv:1711.05101.

    Examples
    --------
    >>> import torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer = FusedAdam([w], lr=0.1)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    def __init__(
        self, params: Any, lr: float, *, decoupled_weight_decay: bool = False
    ) -> None:
        super().__init__(
            params, lr=lr, fused=True, decoupled_weight_decay=decoupled_weight_decay
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew.

        Returns
        -------
        object
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [one for one in group["params"] if one.grad is not None]
        if not params:
            return
        states = self._states(params)
        counters = {id(one["step"]): one["step"] for one in states}
        torch._foreach_add_(list(counters.values()), 1)
        step = torch._fused_adam_
        if group["decoupled_weight_decay"]:
            step = torch._fused_adamw_
        beta1, beta2 = group["betas"]
        step(
            params,
            [one.grad for one in params],
            [one["exp_avg"] for one in states],
            [one["exp_avg_sq"] for one in states],
            [],
            [one["step"] for one in states],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _states(self, params: list[Tensor]) -> list[dict[str, Tensor]]:
        new = [one for one in params if not self.state[one]]
        if new:
            counter = torch.zeros((), device=new[0].device)
            for one in new:
                self.state[one].update(
                    step=counter,
                    exp_avg=torch.zeros_like(one),
                    exp_avg_sq=torch.zeros_like(one),
                )
        return [self.state[one] for one in params]
