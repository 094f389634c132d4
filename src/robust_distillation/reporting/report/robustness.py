"""The sections on accuracy against eps, and on attacked images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from robust_distillation.columns import MODEL, RUN, TEACHER_ROW
from robust_distillation.reporting.curves import robustness_curves
from robust_distillation.reporting.figures.robustness import robustness
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import ReportData

SHOWN = 6  # images of a model at most
PIXELS = 3_000_000  # values of all pictures together: what keeps the page small
SIDE = 72  # pixels on the page


@dataclass(frozen=True)
class Example:
    """One attacked test image with the predictions of one network, as an entry of a `Gallery`. The function `gallery`
    of this module makes it.

    The pictures are PNG files in URLs that begin with `data:image/png;base64,`.

    Attributes:
        clean: picture of the clean image.
        perturbation: picture of the perturbation, magnified so that the largest allowed change is black or white: grey
            is no change. For an l2 threat model, the largest change that occurs is black or white.
        adversarial: picture of the attacked image.
        label: name of the true class.
        prediction: name of the class that the network predicts for the clean image.
        attacked: name of the class that the network predicts for the attacked image.
        robust: True if both predictions are the true class.
    """

    clean: str
    perturbation: str
    adversarial: str
    label: str
    prediction: str
    attacked: str
    robust: bool


@dataclass(frozen=True)
class Gallery:
    """Attacked images of one network, as an element of a section of the report. The function `gallery` of this module
    makes it.

    Attributes:
        kind: class constant `gallery`, not an argument. The report renders the element by
            templates/parts/gallery.html.jinja.
        model: name of the method, or `teacher NAME` for a teacher.
        caption: text above the images, such as `rslad, seed 0: 4 of 6 robust.`
        examples: the images, in the order of the test split, each with `clean`, `perturbation` and `adversarial` (PNG
            pictures in `data:` URLs), `label`, `prediction` and `attacked` (names of classes) and `robust` (bool).
        pixelated: True if the browser shall enlarge the images without smoothing, because they are narrower than 72
            pixels.
    """

    kind = "gallery"
    model: str
    caption: str
    examples: list[Example]
    pixelated: bool


def curves(report: ReportData) -> Section | None:
    """Makes the report's section on accuracy against eps, the size of the perturbation.

    It contains one figure for each teacher and student: the accuracy of the teacher and of each method under attacks
    with several values of eps, as `reporting.figures.robustness.robustness` draws it. The values of eps and the attack
    are settings of the entry `robustness` in the experiment file.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `robustness` (accuracy against eps of each network), `spec` (order of the methods) and `experiment`
            (threat model).

    Returns:
        A `Section` with the `id` `eps`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no entry
        `robustness`.
    """
    if not report.robustness:
        return None
    first = next(iter(report.robustness.values()))
    lead = (
        f"Accuracy on {first['images']} test images as the attack ({first['attack']}) may change each image by more. "
        f"At 0 it is the clean accuracy; training and all other tables have {report.spec.threat}."
    )
    rows = robustness_curves(report.robustness.values())
    threat = report.experiment.threat_model
    groups = [Group(one.label, [robustness(rows, report.spec, one, threat)]) for one in report.spec.comparisons]
    return Section("eps", "Robustness against eps", lead, groups)


def gallery(report: ReportData) -> Section | None:
    """Makes the report's section with attacked test images of the teachers and of the first seed of each distillation
    method.

    For each teacher and student it contains one `Gallery` (clean image, perturbation, attacked image and predictions)
    of the teacher and one of each method. A gallery has up to six images: fewer if the pictures of all galleries would
    have more than 3,000,000 values together, but at least one.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `robustness` (paths and contents of the JSON files of accuracy against eps), `spec` (pairs of
            teacher and student) and `experiment` (names of the classes, threat model). The images and predictions are
            read from the .npz file beside each JSON file of `robustness`, such as
            results/digits/robustness/students/wide/small/rslad/seed-0.npz.

    Returns:
        A `Section` with the `id` `gallery`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no entry
        `robustness`.
    """
    if not report.robustness:
        return None
    about = next(iter(report.robustness.values()))["gallery"]
    lead = (
        f"The first test images, the perturbation of {about['attack']} at eps {about['eps']:.3g} (grey is none; "
        "magnified so that the largest allowed change is black or white), and the attacked image, with what the "
        f"model says of each. Of each method the first seed, checkpoint {report.spec.first}."
    )
    models = _first_seeds(report)
    groups = []
    for comparison in report.spec.comparisons:
        rows = [*_files(comparison.teacher_rows(models)), *_files(comparison.students(models))]
        groups.append(Group(comparison.label, [_gallery(report, file, len(models)) for file in rows]))
    return Section("gallery", "Attacked images", lead, groups)


def _first_seeds(report: ReportData) -> pd.DataFrame:
    """Returns a row per teacher and method in the experiment's order: RUN and file, of the first seed."""
    rows = [{**{key: curve[key] for key in RUN}, "file": file} for file, curve in report.robustness.items()]
    return pd.DataFrame(rows).drop_duplicates(MODEL)


def _files(rows: pd.DataFrame) -> list[Path]:
    return rows["file"].tolist()


def _gallery(report: ReportData, file: Path, models: int) -> Gallery:
    keys = report.robustness[file]
    names, eps = report.experiment.info.classes, report.experiment.threat_model.eps
    with np.load(file.with_suffix(".npz")) as arrays:
        x, adversarial = arrays["x"], arrays["adversarial"]
        labels, clean, attacked = (arrays[key] for key in ("labels", "prediction", "adversarial_prediction"))
    count = max(1, min(SHOWN, len(x), PIXELS // (3 * models * x[0].size)))
    # An l2 perturbation has no largest change of a pixel: the largest that occurs stands for it.
    scale = eps if report.experiment.threat_model.norm == "linf" else float(np.abs(adversarial - x).max()) or 1.0
    examples = [
        Example(
            picture(x[i]), picture(0.5 + (adversarial[i] - x[i]) / (2 * scale)), picture(adversarial[i]),
            names[labels[i]], names[clean[i]], names[attacked[i]], bool(clean[i] == attacked[i] == labels[i]),
        )
        for i in range(count)
    ]  # fmt: skip
    robust = sum(example.robust for example in examples)
    name = f"teacher {keys['teacher']}" if keys["student"] == TEACHER_ROW else keys["method"]
    return Gallery(
        name, f"{name}, seed {keys['seed']}: {robust} of {count} robust.", examples, pixelated=x.shape[-1] < SIDE
    )


def picture(image: np.ndarray) -> str:
    """Converts an image to a PNG file in a `data:` URL, so that the page contains it.

    Args:
        image: floats [C,H,W] in [0, 1], with C = 1 (grey) or C = 3 (red, green, blue). Values outside [0, 1] are
            clipped.

    Returns:
        The URL, `data:image/png;base64,...`, with eight bits per channel.
    """
    pixels = (255 * image.clip(0, 1)).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
