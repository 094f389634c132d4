"""The attack core: start, gradient, step, project. What is maximised is passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cuda_graph import Recorded
from robust_distillation.device import to_device
from robust_distillation.errors import UserError
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import generator as draws
from robust_distillation.settings import ThreatModel

TINY = 1e-12


def maximise(
    model: nn.Module,
    x: Tensor,
    objective: Callable[..., Tensor],
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    start: str,
    generator: torch.Generator | None = None,
    mode: str = "eval",
    project_start: bool = True,
    drawn: tuple[slice, int] | None = None,
    given: tuple[Any, ...] = (),
    recorded: Recorded | None = None,
) -> Tensor:
    """Projected gradient ascent (Madry et al., 2018): x' [B,C,H,W] in the ball around x and in [0,1].

    objective: logits [B,K] at x', and what is `given`, to values [B]. start: `zero`, `uniform` in the ball, or
    `gaussian` (0.001 N(0,1), as TRADES and RSLAD start); project_start false: the first gradient is taken where the
    noise led, as in their codes, and x' is in [0,1] only after the first step. step_size is in the units of the norm.
    drawn: as for `starting_noise`. recorded: of calls that differ in x, in what is given and in the weights' values
    only. The model's parameters and mode are as before when this returns or raises, and so are its buffers unless mode
    is `train`, which moves the running statistics of batch norm with every step.
    """

    def ascended(x: Tensor, adversarial: Tensor, *given: Any) -> Tensor:
        adversarial = adversarial.detach().requires_grad_(True)
        with torch.enable_grad():
            values = objective(model(adversarial), *given).sum()
        [gradient] = torch.autograd.grad(values, [adversarial])
        return project(x, adversarial.detach() + step_size * direction(gradient, threat), threat)

    x = x.detach()
    with frozen(model, mode):
        adversarial = x + starting_noise(x, threat, start, generator, drawn)
        if project_start:
            adversarial = project(x, adversarial, threat)
        for _ in range(steps):
            adversarial = recorded(ascended, x, adversarial, *given) if recorded else ascended(x, adversarial, *given)
    return adversarial.clone() if recorded else adversarial


def starting_noise(
    x: Tensor,
    threat: ThreatModel,
    start: str,
    generator: torch.Generator | None,
    drawn: tuple[slice, int] | None = None,
) -> Tensor:
    """The noise [B,C,H,W] that is added to x first, drawn on the CPU so that it does not depend on the device.

    drawn: where x is a share of a batch, its rows there and the size of that batch. The noise of all of it is drawn,
    and x has its rows of that: it does not depend on the shares either.
    """
    rows, total = drawn or (slice(None), len(x))
    shape = (total, *x.shape[1:])

    def there(draws: Tensor) -> Tensor:
        return to_device(draws[rows], x.device).to(x.dtype)

    if start == "zero":
        return torch.zeros_like(x)
    if start == "gaussian":
        return 0.001 * there(torch.randn(shape, generator=generator))
    if threat.norm == "linf":
        return threat.eps * (2 * there(torch.rand(shape, generator=generator)) - 1)
    # Uniform in the L2 ball: a uniform direction, and a radius whose n-th power is uniform.
    noise = there(torch.randn(shape, generator=generator))
    radius = there(torch.rand(total, generator=generator)) ** (1 / x[0].numel())
    return threat.eps * per_image(radius) * noise / per_image(l2_norm(noise))


def direction(gradient: Tensor, threat: ThreatModel) -> Tensor:
    """Steepest ascent of unit length in the threat model's norm."""
    if threat.norm == "linf":
        return gradient.sign()
    return gradient / per_image(l2_norm(gradient))


def project(x: Tensor, adversarial: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest image in the ball around x, then in [0,1]: x is in it too, so the second keeps the first."""
    if threat.norm == "linf":
        return adversarial.maximum(x - threat.eps).minimum(x + threat.eps).clamp(0, 1)
    noise = adversarial - x
    return (x + noise * (threat.eps / per_image(l2_norm(noise))).clamp(max=1)).clamp(0, 1)


def l2_norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).clamp(min=TINY)


def per_image(values: Tensor) -> Tensor:
    """[B] to [B,1,1,1]."""
    return values[:, None, None, None]


def published_pgd(
    name: str,
    model: nn.Module,
    x: Tensor,
    objective: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    seed: int,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """x' of an evaluation attack with absolute steps in the Linf ball from a uniform start.

    Raises UserError for another norm, in which a step of so many grey levels means something else.
    """
    if threat.norm != "linf":
        raise UserError(
            f"attack {name!r} is defined in the linf ball only, not in {threat.norm}: use pgd20 or autoattack"
        )
    noise = draws(seed, name)
    return maximise(model, x, objective, threat, steps=steps, step_size=step_size, start="uniform", generator=noise)
