"""Making torch repeat itself."""

from __future__ import annotations

import torch

from robust_distillation import gpus
from robust_distillation.config import Experiment
from robust_distillation.errors import UserError


def device_of(experiment: Experiment) -> torch.device:
    """The device that the params name or, where that is `auto`, a GPU that no other job has; after fixing the threads
    and, where kernels may differ, choosing those that repeat themselves. Raises UserError where a GPU is asked for and
    there is none."""
    torch.set_num_threads(experiment.compute.threads)
    name = experiment.compute.device
    if name == "auto":
        name = "cpu"
        if torch.cuda.is_available():
            ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
            name = f"cuda:{gpus.take(ids, experiment.compute.jobs_per_gpu)}"
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"compute.device: {name} is asked for, but torch sees no GPU here")
    if (number := torch.device(name).index) is not None:
        if number >= (count := torch.cuda.device_count()):
            raise UserError(f"compute.device: {name} is asked for, but torch sees {count} GPUs here, from cuda:0 on")
        torch.cuda.set_device(name)  # what names no device, such as pinned memory, belongs to it as well
    # What `precision: exact` promises: no convolution or product in TF32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if name != "cpu" or experiment.compute.threads > 1:
        # One CPU thread repeats itself anyway, and this call costs 2 s of imports.
        torch.use_deterministic_algorithms(True)
    return torch.device(name)
