"""Export of a model to a folder that can be used without this package: weights, source code, ONNX and model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save

from robust_distillation.columns import NO_TEACHER
from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.export import card
from robust_distillation.export.architecture import standalone_source
from robust_distillation.export.onnx import Agreement, agreement, write_onnx
from robust_distillation.files import read_json, sha256, write_json, write_text
from robust_distillation.methods import TEACHER
from robust_distillation.models.checkpoint import load_model, read_checkpoint
from robust_distillation.pipeline.experiment_data import load_split
from robust_distillation.pipeline.models import Model


def export_model(experiment: Experiment, name: str, trained: Model, checkpoint: str, folder: Path) -> Agreement:
    """Exports a checkpoint to a new folder that can be used without this package: all files or, after an error, none.

    The files are model.safetensors (weights), architecture.py (source code that needs only torch), config.json
    (architecture, classes, input shape, normalisation, threat model), model.onnx and README.md (the model card:
    training, accuracies and their intervals, hashes).

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        name: name of the model in the card, for example `wide` for a teacher or `wide/small/rslad/seed-0` for a
            student.
        trained: the teacher or student to export, one of `pipeline.models.models(experiment)`: `folder` (of the
            training), `keys` (teacher, student, method and seed) and `checkpoints` (name to path) are used.
        checkpoint: name of the checkpoint, a key of `trained.checkpoints`: "best", "last" or "imported".
        folder: folder to write. It must be empty or missing.

    Returns:
        An `Agreement` of ONNX Runtime and PyTorch on the experiment's test images: `images` (their number),
        `difference` (largest absolute difference of a logit) and `same_predictions` (number of equal predictions).

    Raises:
        UserError: the folder is not empty, the model was not trained or attacked yet, its weights are not those of its
            record (the JSON file beside it: its inputs, settings, code hash and hashes of the outputs), or its
            architecture imports more than torch.
        RuntimeError: the ONNX model predicts another class for a test image, or its logits differ from those of PyTorch
            by more than 0.001 * max(1, largest absolute logit).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already. Name a folder that is new or empty")
    layout, weights = experiment.layout, trained.checkpoints[checkpoint]
    state, metadata = read_checkpoint(weights)
    source = standalone_source(metadata["architecture"]["name"], metadata["normalisation"] is not None)
    attacked = layout.outcomes(trained.folder)
    for file in (attacked, layout.training_record(trained.folder)):
        if not file.is_file():
            raise UserError(f"{file}: does not exist yet. Run the experiment first: robust-distillation reproduce")
    record, digest = read_json(layout.training_record(trained.folder)), sha256(weights)
    if record["outputs"].get(str(weights)) != digest:
        raise UserError(f"{weights}: is not the file that its record names. Remove it and run the experiment again")
    outcomes = read_outcomes([attacked])
    outcomes = outcomes[outcomes["checkpoint"].eq(checkpoint)]
    model, dataset = load_model(weights), metadata["dataset"]
    images = load_split(experiment, "test").first(experiment.test_images).floats()

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        (temporary / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
        write_text(temporary / "architecture.py", source)
        write_json(temporary / "config.json", _config(metadata))
        write_onnx(model, tuple(dataset["shape"]), temporary / "model.onnx")
        compared = agreement(model, temporary / "model.onnx", images)
        keys = {**trained.keys, "checkpoint": checkpoint}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        text = card.render(
            **_provenance(experiment, metadata, keys, record),
            name=name,
            parameters=f"{parameters:,}",
            rows=card.accuracies(outcomes),
            table=card.seed_statistics(layout.tables / "main.csv", keys),
            agreement=compared,
            hashes={
                "checkpoint": digest,
                "record": sha256(layout.training_record(trained.folder)),
                "outcomes": sha256(attacked),
            },
        )
        write_text(temporary / "README.md", text)
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return compared


def _config(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of config.json, from the metadata of a checkpoint."""
    architecture, dataset = metadata["architecture"], metadata["dataset"]
    return {
        "architecture": architecture["name"],
        "arguments": {key: value for key, value in architecture.items() if key != "name"},
        "dataset": dataset["name"],
        "classes": dataset["classes"],
        "input_shape": dataset["shape"],
        "input_range": [0, 1],
        "normalisation": metadata["normalisation"],
        "threat_model": metadata["threat_model"],
    }


def _provenance(
    experiment: Experiment, metadata: dict[str, Any], keys: dict[str, Any], record: dict[str, Any]
) -> dict[str, Any]:
    """Returns the card's variables about architecture, data, training and provenance."""
    architecture, threat, method = metadata["architecture"], metadata["threat_model"], metadata.get("method")
    dataset, distilled = metadata["dataset"], metadata["role"] == "student" and keys["teacher"] != NO_TEACHER
    arguments = ", ".join(f"{key} {value}" for key, value in architecture.items() if key != "name")
    subject = keys["teacher"] if metadata["role"] == "teacher" else f"{keys['student']} by {keys['method']}"
    teachers = {role: experiment.teachers[name] for role, name in experiment.roles(keys["teacher"]).items()}
    described = [
        ("" if role == TEACHER else f"{role}: ") + f"`{teacher.architecture['name']}`, {teacher.origin}"
        for role, teacher in teachers.items()
    ]
    return {
        "title": f"{subject} on {dataset['name']}",
        "experiment": experiment.name,
        "keys": keys,
        "architecture_text": f"`{architecture['name']}` ({arguments})",
        "dataset": dataset,
        "shape": dataset["shape"],
        "normalisation": metadata["normalisation"],
        "threat": f"{threat['norm']} eps {threat['eps']:.4g}",
        "protocol": experiment.file.protocol,
        "method": method,
        "method_name": method["name"] if method else keys["method"],
        "method_about": card.describe_method(method["name"]) if method else "",
        "distilled": distilled,
        "teacher_text": "; ".join(described) if distilled else "",
        "published": metadata.get("published"),
        "training": metadata.get("training"),
        "checkpoint": metadata["checkpoint"],
        "selection": card.selection(metadata),
        "chosen_on_test": metadata["checkpoint"] == "best" and experiment.selects_on_test,
        "evaluation": {"block_size": experiment.evaluation.block_size, "seed": experiment.evaluation.seed},
        "git": record["git"],
        "code": record["code"],
        "versions": record["versions"],
    }
