"""Labels the extra training images by a teacher's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robust_distillation.device import select_device
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.training_data import load_extra

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import LabelExtra
    from robust_distillation.resume import ResumableJob

BATCH = 512  # images per forward pass


def run(step: LabelExtra, work: ResumableJob) -> dict[str, Any]:
    """Writes the class that the teacher of `dataset.extra.labelled_by` predicts for each extra image.

    The images are not augmented and not attacked. `pipeline.run.run_step` calls this function for the workflow step
    label-extra. The file is results/EXPERIMENT/extra/labels.npy, int64 [N].

    Args:
        step: the job, with the parsed experiment file.
        work: the resumable job, entered as a context manager: progress is saved there, and a killed job continues from
            it.

    Returns:
        An entry for the record, the JSON file beside the output: `by_class`, the number of images of each class.

    Raises:
        UserError: if the images changed, if the checkpoint cannot be read, or if a logit is not finite.
    """
    experiment = step.experiment
    device, data, weights = select_device(experiment.compute), load_extra(experiment), step.weights
    teacher = load_for_inference(weights, experiment.compute.precision, device)
    found = [np.frombuffer(saved, np.int64)] if (saved := work.load()) else []
    with torch.no_grad():
        for images in data.images[sum(map(len, found)) :].split(BATCH):
            logits = teacher(data.floats(images).to(device))
            if not logits.isfinite().all():
                raise UserError(f"{weights}: gives logits that are not finite, so it cannot label the extra images")
            found.append(logits.argmax(1).cpu().numpy())
            if work.should_save():
                work.save(np.concatenate(found).tobytes())
    labels = np.concatenate(found)
    with atomic_write(step.outputs[0]) as temporary:
        np.save(temporary, labels)
    return {"by_class": np.bincount(labels, minlength=len(data.info.classes)).tolist()}
