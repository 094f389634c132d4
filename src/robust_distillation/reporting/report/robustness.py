"""Accuracy against the size of the perturbation, and attacked images to look at."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.reporting.report import charts
from robust_distillation.reporting.report.elements import Figure, Group, Section, of_pair
from robust_distillation.reporting.report.legend import TEACHER, legend
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.report.results import of_comparison

SHOWN = 6  # images of a model at most
PIXELS = 3_000_000  # values of all pictures together: what keeps the page small
SIDE = 72  # pixels on the page


@dataclass(frozen=True)
class Example:
    """One image as a model sees it; pictures are `data:` URLs."""

    clean: str
    perturbation: str
    adversarial: str
    label: str
    prediction: str
    attacked: str
    held: bool


@dataclass(frozen=True)
class Gallery:
    """A part of a section: what one model makes of images."""

    kind = "gallery"
    model: str
    caption: str
    examples: list[Example]
    pixelated: bool


def curves(material: Material) -> Section | None:
    if not material.robustness:
        return None
    first = next(iter(material.robustness.values()))
    lead = (
        f"Accuracy on {first['images']} test images as the attack ({first['attack']}) may change each image by more. "
        f"At 0 it is the clean accuracy; training and all other tables have {material.matrix.threat}."
    )
    groups = [Group(of_pair(*pair), [_curves(material, *pair)]) for pair in material.matrix.pairs]
    return Section("eps", "Robustness against eps", lead, groups)


def _curves(material: Material, teacher: str, student: str) -> Figure:
    names, threat = material.matrix.methods, material.experiment.threat_model
    found = pd.DataFrame([
        {**{key: curve[key] for key in ("teacher", "student", "method", "seed")}, "eps": eps, "value": value}
        for curve in material.robustness.values()
        for eps, value in zip(curve["eps"], curve["accuracy"], strict=True)
    ])  # fmt: skip
    own = of_comparison(found, teacher, student)
    own["method"] = own["method"].where(own["student"] != ITSELF, TEACHER)
    frame = own.groupby(["method", "eps"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    frame = frame.rename(columns={"mean": "value", "min": "low", "max": "high"})
    frame["label"] = [f"{row.method}, eps {row.eps:.3g}: {row.value:.1f} %" for row in frame.itertuples()]
    chart = charts.lines(frame, names, ("eps", f"eps ({threat.norm})"), ("value", "accuracy (%)"), marked=threat.eps)
    last = frame[frame["eps"] == frame["eps"].max()]
    said = ", ".join(f"{row.method} {row.value:.1f}" for row in last.itertuples())
    panel = charts.panel(chart, f"Accuracy by eps; at {last['eps'].iloc[0]:.3g}: {said}")
    caption = (
        f"{of_pair(teacher, student)}, checkpoint {material.first}: mean over the seeds, their range shaded. Dashed: "
        "the eps of the threat model."
    )
    return Figure(caption, [panel], [key for key in legend(names) if key.name in set(frame["method"])])


def gallery(material: Material) -> Section | None:
    if not material.robustness:
        return None
    about = next(iter(material.robustness.values()))["gallery"]
    lead = (
        f"The first test images, the perturbation of {about['attack']} at eps {about['eps']:.3g} (grey is none; "
        "magnified so that the largest allowed change is black or white), and the attacked image, with what the "
        f"model says of each. Of each method the first seed, checkpoint {material.first}."
    )
    chosen = _first_seeds(material)
    groups = []
    for teacher, student in material.matrix.pairs:
        itself = [file for file, keys in chosen.items() if keys["student"] == ITSELF and keys["teacher"] == teacher]
        own = [
            file
            for file, keys in chosen.items()
            if keys["student"] == student and keys["teacher"] in (teacher, NO_TEACHER)
        ]
        parts = [_gallery(material, file, chosen[file], len(chosen)) for file in [*itself, *own]]
        groups.append(Group(of_pair(teacher, student), parts))
    return Section("gallery", "Attacked images", lead, groups)


def _first_seeds(material: Material) -> dict[Path, dict[str, Any]]:
    """Of each teacher and method the first file, in the experiment's order."""
    found: dict[tuple, tuple[Path, dict[str, Any]]] = {}
    for file, curve in material.robustness.items():
        found.setdefault((curve["teacher"], curve["student"], curve["method"]), (file, curve))
    return dict(found.values())


def _gallery(material: Material, file: Path, keys: dict[str, Any], models: int) -> Gallery:
    names, eps = material.experiment.info.classes, material.experiment.threat_model.eps
    with np.load(file.with_suffix(".npz")) as arrays:
        x, adversarial = arrays["x"], arrays["adversarial"]
        labels, clean, attacked = (arrays[key] for key in ("labels", "prediction", "adversarial_prediction"))
    count = max(1, min(SHOWN, len(x), PIXELS // (3 * models * x[0].size)))
    # An l2 perturbation has no largest change of a pixel: the largest that occurs stands for it.
    scale = eps if material.experiment.threat_model.norm == "linf" else float(np.abs(adversarial - x).max()) or 1.0
    examples = [
        Example(
            picture(x[i]), picture(0.5 + (adversarial[i] - x[i]) / (2 * scale)), picture(adversarial[i]),
            names[labels[i]], names[clean[i]], names[attacked[i]], bool(clean[i] == attacked[i] == labels[i]),
        )
        for i in range(count)
    ]  # fmt: skip
    held = sum(example.held for example in examples)
    itself = keys["student"] == ITSELF
    name = f"teacher {keys['teacher']}" if itself else keys["method"]
    return Gallery(
        name, f"{name}, seed {keys['seed']}: {held} of {count} held.", examples, pixelated=x.shape[-1] < SIDE
    )


def picture(image: np.ndarray) -> str:
    """[C,H,W] in [0,1], C 1 or 3, as a PNG in a `data:` URL; what lies outside is cut off."""
    pixels = (255 * image.clip(0, 1)).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
