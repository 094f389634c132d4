"""Projected gradient ascent: start, gradient, step, projection. The objective is an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cuda_graph import GraphReplay
from robust_distillation.device import to_device
from robust_distillation.errors import UserError
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel

TINY = 1e-12


def pgd(
    model: nn.Module,
    x: Tensor,
    objective: Callable[..., Tensor],
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    noise: Tensor | None = None,
    mode: str = "eval",
    project_start: bool = True,
    objective_args: tuple[Any, ...] = (),
    replay: GraphReplay | None = None,
) -> Tensor:
    """Maximises an objective by projected gradient ascent (Madry et al., 2018).

    The model's parameters and mode are as before when this returns or raises. So are its buffers, unless mode is
    `train`.

    Args:
        model: the network that is attacked; its parameters get no gradient.
        x: clean images in [0,1], [B,C,H,W].
        objective: called as objective(x', logits, *objective_args), with the model's logits [B,K] at x'; returns [B].
        threat: norm and radius of the ball around x.
        steps: number of gradient steps.
        step_size: length of a step in the threat model's norm.
        noise: what is added to x at the start, [B,C,H,W]; None for nothing.
        mode: `eval`, or `train` as in some released codes: each step then moves batch norm's running statistics.
        project_start: False: the first gradient is taken at x + noise as it is, which may lie outside of [0,1].
        objective_args: further arguments of the objective, such as labels.
        replay: replays the steps as CUDA graphs. Between its calls only x, noise, objective_args and the weights may
            differ in value.

    Returns:
        x', in the ball around x and in [0,1] (after the first step), [B,C,H,W].
    """

    def ascend(x: Tensor, adversarial: Tensor, *args: Any) -> Tensor:
        adversarial = adversarial.detach().requires_grad_(True)
        with torch.enable_grad():
            values = objective(adversarial, model(adversarial), *args).sum()
        [gradient] = torch.autograd.grad(values, [adversarial])
        return project(x, adversarial.detach() + step_size * direction(gradient, threat), threat)

    x = x.detach()
    call = replay or (lambda function, *args: function(*args))
    with frozen(model, mode):
        adversarial = x if noise is None else x + noise
        if project_start:
            adversarial = project(x, adversarial, threat)
        for _ in range(steps):
            adversarial = call(ascend, x, adversarial, *objective_args)
    return adversarial.clone()  # a replayed graph overwrites its result


def starting_noise(
    x: Tensor,
    threat: ThreatModel,
    start: str,
    generator: torch.Generator,
    noise_shard: tuple[slice, int] | None = None,
) -> Tensor:
    """Draws the noise that an attack starts from, on the CPU, so that it does not depend on the device.

    Args:
        x: clean images, [B,C,H,W].
        threat: norm and radius of the ball.
        start: `zero`, `uniform` in the ball, or `gaussian`: 0.001 N(0,1), as TRADES and RSLAD start.
        generator: a CPU generator.
        noise_shard: if x is one process's share of a batch, its rows and the size of that batch, else None. The noise
            of the whole batch is drawn, so that an image's noise does not depend on the shares.

    Returns:
        Noise [B,C,H,W] on the device and of the type of x.
    """
    rows, total = noise_shard or (slice(None), len(x))
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
    """Returns the direction of steepest ascent, of unit length in the threat model's norm, from gradients [B,C,H,W]."""
    if threat.norm == "linf":
        return gradient.sign()
    return gradient / per_image(l2_norm(gradient))


def project(x: Tensor, adversarial: Tensor, threat: ThreatModel) -> Tensor:
    """Projects images [B,C,H,W] onto the ball around x and then onto [0,1], which keeps them in the ball.

    Args:
        x: clean images in [0,1], [B,C,H,W].
        adversarial: the images to project, [B,C,H,W].
        threat: norm and radius of the ball.
    """
    if threat.norm == "linf":
        return adversarial.maximum(x - threat.eps).minimum(x + threat.eps).clamp(0, 1)
    noise = adversarial - x
    return (x + noise * (threat.eps / per_image(l2_norm(noise))).clamp(max=1)).clamp(0, 1)


def l2_norm(x: Tensor) -> Tensor:
    """Computes the L2 norm of each image [B,C,H,W], [B], at least 1e-12."""
    return x.flatten(1).norm(dim=1).clamp(min=TINY)


def per_image(values: Tensor) -> Tensor:
    """Reshapes values [B] to [B,1,1,1]."""
    return values[:, None, None, None]


def linf_pgd(
    name: str,
    model: nn.Module,
    x: Tensor,
    objective: Callable[..., Tensor],
    labels: Tensor,
    threat: ThreatModel,
    seed: int,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Runs a published attack that is defined by absolute step sizes in the Linf ball, from a uniform start.

    Args:
        name: name of the attack; also the purpose of its random numbers.
        model: the network that is attacked.
        x: clean images in [0,1], [B,C,H,W].
        objective: called as objective(x', logits, labels); returns [B].
        labels: int64 [B].
        threat: radius of the ball; its norm must be linf.
        seed: seed of the start.
        steps: number of gradient steps.
        step_size: length of a step, in units of [0,1] pixels.

    Raises:
        UserError: the threat model has another norm, in which a step of so many grey levels means something else.
    """
    if threat.norm != "linf":
        raise UserError(
            f"attack {name!r} is defined in the linf ball only, not in {threat.norm}: use pgd20 or autoattack"
        )
    noise = starting_noise(x, threat, "uniform", generator(seed, name))
    return pgd(model, x, objective, threat, steps=steps, step_size=step_size, noise=noise, objective_args=(labels,))
