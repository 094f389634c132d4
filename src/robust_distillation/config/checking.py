"""Checks the values of an experiment file against each other, and its names against what exists.

Each function adds one message per mistake to the list `problems`: path of the field, what is wrong, what is allowed.
"""

from __future__ import annotations

from robust_distillation import attacks, data, metrics
from robust_distillation.columns import AUGMENTED, NO_TEACHER, ON_SURROGATE, PAIRS, attack_of
from robust_distillation.config.experiment import Experiment
from robust_distillation.config.parsing import path_text
from robust_distillation.config.schema import DataFiles, ExperimentFile
from robust_distillation.data import extra
from robust_distillation.data.info import DatasetInfo
from robust_distillation.errors import MAX_NAMES, UserError, short_repr, unknown
from robust_distillation.methods import TEACHER
from robust_distillation.reference import published

IMAGE_FOLDER = "image_folder"  # the dataset whose classes and sizes follow from its folder


def data_info(files: DataFiles, where: tuple, problems: list[str]) -> DatasetInfo | None:
    """Returns what is known of a dataset without reading it, and checks the settings of its files.

    Args:
        files: the section `dataset` of the experiment file, or `transfer.NAME.dataset`: `name` such as "cifar10",
            `folder` of the files, `size` (side in pixels to which images are resized; None: their own size), `classes`
            (for `image_folder`), `download`, `verify` and `mirror`.
        where: keys that lead to these settings in the experiment file, such as ("dataset",).
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.

    Returns:
        A DatasetInfo: `shape` (C,H,W), `classes` (their names), `sizes` (number of images by "train", "validation" and
        "test"), `flips` (True if a mirrored image keeps its class) and `max_value` (the pixel value that stands for
        1.0). None if a mistake makes them unknown.
    """
    folder, field = files.name == IMAGE_FOLDER, path_text(where)
    if files.classes and not folder and files.name in data.names():
        problems.append(f"{field}.classes: means nothing for {files.name}: its classes are known")
    elif files.classes and len(set(files.classes)) < max(2, len(files.classes)):
        problems.append(f"{field}.classes: give at least two, each once")
        return None
    if folder and files.size is None:
        problems.append(f"{field}.size: is missing: the side in pixels to which every image is brought")
        return None
    try:
        return data.info(files.name, files.options)
    except UserError as error:
        key = "name" if files.name not in data.names() else "folder"
        problems.append(f"{field}.{key}: {error}")
        return None


def split_sizes(file: ExperimentFile, info: DatasetInfo) -> dict[str, int | None]:
    """Counts the images of each split under the experiment's protocol, before `dataset.limit` applies.

    Args:
        file: the parsed experiment file; only `file.protocol` is used. Under the `official` protocol the validation
            images are used for training too, and the test split takes the place of the validation split.
        info: facts about the dataset, as `data_info` returns them; only `sizes` is used.

    Returns:
        Number of images of each split, such as `{"train": 45000, "validation": 5000, "test": 10000}`. None stands for a
        size that is not known.
    """
    sizes = dict(info.sizes)
    if file.protocol == "official" and None not in sizes.values():
        return {"train": sizes["train"] + sizes["validation"], "validation": sizes["test"], "test": sizes["test"]}
    return sizes


def check_images(file: ExperimentFile, sizes: dict[str, int | None], problems: list[str]) -> None:
    """Checks that no setting of an experiment file asks for more images than a split has.

    The settings are `dataset.limit`, and `images` under `evaluation`, `structure` and `robustness`. A split whose size
    is not known needs a value in `dataset.limit`.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).
        sizes: number of images of each split, as `split_sizes` returns it; empty if the dataset is unknown.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.
    """
    limits = file.dataset.limit
    for split, size in sizes.items():
        if (limit := getattr(limits, split) or 0) > (size or limit):
            problems.append(f"dataset.limit.{split}: {limit} is more than the {size} images of the split")
    if missing := [split for split, size in sizes.items() if not (size or getattr(limits, split))]:
        folder = short_repr(file.dataset.folder)
        problems.append(f"dataset.limit: give {', '.join(missing)} as long as the folder {folder} is not there")
    test = limits.test or sizes.get("test")
    for where, images in (
        ("evaluation.images", file.evaluation.images),
        ("structure.images", file.structure and file.structure.images),
        ("robustness.images", file.robustness and file.robustness.images),
    ):
        if test and (images or 0) > test:
            problems.append(f"{where}: {images} is more than the {test} images of the test split")


def check_extra(file: ExperimentFile, info: DatasetInfo | None, alone: list[str], problems: list[str]) -> None:
    """Checks the settings under `dataset.extra` in an experiment file, and the form of the extra images.

    The images must have the shape of the dataset's images, and labels if they are asked for. As long as the file or
    folder is missing, `limit` and `labels` must be set. `labelled_by` must be the name of a teacher.

    Args:
        file: the parsed experiment file; only `file.dataset` is used.
        info: facts about the dataset, as `data_info` returns them. None if it is unknown: then nothing is checked.
        alone: names of the teachers that have a network of their own.
        problems: list to which one message per mistake is appended; nothing is appended if all is correct.
    """
    chosen = file.dataset.extra
    if chosen is None or info is None:
        return
    if chosen.labelled_by is not None and chosen.labelled_by not in alone:
        problems.append(f"dataset.extra.labelled_by: {unknown('teacher', chosen.labelled_by, alone)}")
    if chosen.rest:
        return
    key = "folder" if chosen.file is None else "file"
    try:
        found = extra.info(chosen.path, chosen.file is None, info)
    except (UserError, OSError) as error:
        problems.append(f"dataset.extra.{key}: {error}")
        return
    if found is None:
        wanted = {"limit": chosen.limit, "labels": False if chosen.labelled_by else chosen.labels}
        if missing := [name for name, value in wanted.items() if value is None]:
            where = short_repr(chosen.path)
            problems.append(f"dataset.extra.{key}: give {', '.join(missing)} as long as {where} is not there")
    elif (chosen.limit or 0) > found.images:
        problems.append(f"dataset.extra.limit: {chosen.limit} is more than the {found.images} images that are there")
    elif chosen.labels and not found.labelled:
        problems.append(f"dataset.extra.labels: {short_repr(chosen.path)} has none; leave it out, or give labelled_by")


def check_extra_labels(experiment: Experiment, problems: list[str]) -> None:
    """Checks that trainings that need labels have those of the extra images, and that every batch has extra images.

    Args:
        experiment: the resolved experiment.
        problems: list to which one message per mistake is appended; nothing is appended if all is correct.
    """
    chosen = experiment.extra
    if not chosen:
        return
    if chosen.rest and not experiment.left_out:
        problems.append("dataset.extra.rest: dataset.limit.train leaves no image out")
    elif chosen.rest and (chosen.limit or 0) > experiment.left_out:
        problems.append(
            f"dataset.extra.limit: {chosen.limit} is more than the {experiment.left_out} images that "
            "dataset.limit.train leaves out"
        )
    needing = list(experiment.labelled_trainings)
    if needing and chosen.labelled_by is None and not experiment.extra_source.labels:
        more = f" and {len(needing) - MAX_NAMES} more" if len(needing) > MAX_NAMES else ""
        problems.append(
            f"dataset.extra: its images have no labels, which {', '.join(needing[:MAX_NAMES])}{more} need: name a "
            "teacher in dataset.extra.labelled_by, whose predictions they become (it is trained without them), or "
            "leave out what needs labels"
        )
    batch = min(recipe.training.batch_size for recipe in experiment.recipes.values())
    if not extra.images_in_batch(batch, chosen.share):
        problems.append(f"dataset.extra.share: {chosen.share:g} of a batch of {batch} is less than one image")


def check_evaluation(file: ExperimentFile, classes: int, problems: list[str]) -> None:
    """Checks the attacks, surrogate, metrics and checkpoints under `evaluation` in an experiment file.

    Every attack must exist, be named once, and be defined for the norm and the number of classes. Transfer attacks
    (`transfer_pgd20` is pgd20 crafted on another network) need `evaluation.surrogate`, the teacher on which they are
    crafted; it must be a name under `teachers`. Every name under `evaluation.metrics` must be METRIC.ATTACK, such as
    `worst_class.autoattack`, with an attack of the experiment or `clean`. No checkpoint and no metric may be named
    twice.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).
        classes: number of classes of the dataset.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.
    """
    evaluation = file.evaluation
    _check_attacks(evaluation.attacks, "evaluation.attacks", file.threat_model.norm, classes, problems)
    crafted = [name for name in evaluation.attacks if name.startswith(ON_SURROGATE)]
    if crafted and evaluation.surrogate is None:
        problems.append(f"evaluation.surrogate: is missing: the teacher that {crafted[0]} is crafted on")
    augmented = next((name for name in crafted if name.startswith(AUGMENTED)), None)
    if augmented and evaluation.model_augmentation is None:
        problems.append(
            f"evaluation.model_augmentation: is missing: the transformations of {augmented}; {{}} stands for AutoMA's"
        )
    if evaluation.surrogate is not None and evaluation.surrogate not in file.teachers:
        problems.append(f"evaluation.surrogate: {unknown('teacher', evaluation.surrogate, file.teachers)}")
    allowed = further_metrics(evaluation.attacks)
    problems += [
        f"evaluation.metrics[{i}]: {unknown_metric(name, allowed)}"
        for i, name in enumerate(evaluation.metrics)
        if name not in allowed
    ]
    for key, names in (("checkpoints", evaluation.checkpoints), ("metrics", evaluation.metrics)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            problems.append(f"evaluation.{key}: {short_repr(twice)} is named twice")


def further_metrics(names: list[str]) -> list[str]:
    """Lists the names of all metrics beside accuracy, on clean images and under each attack.

    Args:
        names: names of the attacks, such as ["pgd20", "autoattack"].

    Returns:
        Names METRIC.ATTACK for every registered metric, where ATTACK is `clean` or an element of `names`, such as
        ["worst_class.clean", "worst_class.pgd20", "worst_class.autoattack", ...].
    """
    return [f"{kind}.{attack}" for kind in metrics.names() for attack in ("clean", *names)]


def selection_metrics() -> list[str]:
    """Lists the metrics beside accuracy by which a training can choose its checkpoint `best`.

    They are the registered metrics that need nothing but whether each image is classified correctly, such as
    `worst_class`. No metric is imported.

    Returns:
        The names, sorted. `training.selection.by` names one together with an attack, such as `worst_class.apgd`.
    """
    return [kind for kind in metrics.names() if not metrics.registry.constant(kind, "NEEDS", ())]


def unknown_metric(name: str, allowed: list[str]) -> str:
    """Returns the message for an unknown name of a metric, with the nearest allowed spelling.

    Args:
        name: the unknown name, such as "worst_class" or "autoatack".
        allowed: the allowed names: `clean`, names of attacks, METRIC.ATTACK such as `worst_class.autoattack`, and
            metrics of analyses such as `structure.feature_distance`.

    Returns:
        If `name` is a METRIC without an attack, a text such as "worst_class needs `clean` or an attack:
        worst_class.clean, worst_class.pgd20". Otherwise a text such as "unknown metric 'autoatack'. Did you mean
        'autoattack'? Allowed: ...".
    """
    of_kind = [metric for metric in allowed if metric.startswith(f"{name}.")]
    if of_kind:
        return f"{name} needs `clean` or an attack: {', '.join(of_kind)}"
    alike = [metric for metric in allowed if ("." in metric) == ("." in name)]
    return unknown("metric", name, alike or allowed)


def compares_with_teacher(metric: str) -> bool:
    """Returns whether a metric compares a student with its teacher. The metric is not imported.

    Args:
        metric: `clean` or the name of an attack for the accuracy, or METRIC.ATTACK, such as `agreement.autoattack`.

    Returns:
        True if METRIC needs the predictions of the teacher, as `agreement` does; False for an accuracy.

    Raises:
        UserError: if METRIC is not registered.
    """
    kind, _ = metrics.split(metric)
    return bool(kind) and "teacher" in metrics.registry.constant(kind, "NEEDS", ())


def _check_attacks(
    names: list[str], where: str, norm: str, classes: int, problems: list[str], surrogate: bool = True
) -> None:
    for i, name in enumerate(names):
        base = attack_of(name) if surrogate else name
        if base not in attacks.names():
            allowed = [name.removesuffix(base) + attack for attack in attacks.names()]
            problems.append(f"{where}[{i}]: {unknown('attack', name, allowed)}")
        elif surrogate and name.startswith(AUGMENTED) and not attacks.registry.constant(base, "AUGMENTABLE", False):
            able = [attack for attack in attacks.names() if attacks.registry.constant(attack, "AUGMENTABLE", False)]
            problems.append(
                f"{where}[{i}]: {base} does more than follow the gradient, so it cannot be augmented. Allowed: "
                f"{', '.join(AUGMENTED + attack for attack in able)}"
            )
        elif norm not in attacks.registry.constant(base, "NORMS", ("linf", "l2")):
            problems.append(f"{where}[{i}]: {name} is not defined for the norm {norm}")
        elif classes < (least := attacks.registry.constant(base, "CLASSES", 2)):
            problems.append(f"{where}[{i}]: {name} needs at least {least} classes, the dataset has {classes}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        problems.append(f"{where}: {short_repr(twice)} is named twice")


def check_analyses(file: ExperimentFile, info: DatasetInfo | None, problems: list[str]) -> None:
    """Checks the settings under `robustness` and `transfer` in an experiment file.

    `robustness` measures the accuracy at several sizes eps of the perturbation, which must be ascending. `transfer`
    trains a linear head for other datasets: their images must have the shape of the experiment's images, their attacks
    must exist, and they must have enough test images.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).
        info: facts about the experiment's dataset, as `data_info` returns them; only `shape` is used. None if the
            dataset is unknown.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.
    """
    if file.robustness:
        _check_distances(file.robustness.eps, file.threat_model.norm, problems)
    for name, transfer in file.transfer.items():
        target = data_info(transfer.dataset, ("transfer", name, "dataset"), problems)
        if target and info and target.shape != info.shape:
            problems.append(
                f"transfer.{name}.dataset: has images of shape {target.shape}, the students take {info.shape}: see size"
            )
        images = target.sizes["test"] if target else None
        if images and (transfer.images or 0) > images:
            problems.append(f"transfer.{name}.images: {transfer.images} is more than the {images} images of the split")
        elif target and not (images or transfer.images):
            folder = short_repr(transfer.dataset.folder)
            problems.append(f"transfer.{name}.images: is needed as long as the folder {folder} is not there")
        classes = len(target.classes) if target else 10
        where = f"transfer.{name}.attacks"
        _check_attacks(transfer.attacks, where, file.threat_model.norm, classes, problems, surrogate=False)


def _check_distances(distances: list[float], norm: str, problems: list[str]) -> None:
    if distances != sorted(set(distances)):
        problems.append(f"robustness.eps: {str(distances)[:80]} must be ascending")
    elif norm == "linf" and distances[-1] > 1:
        problems.append(
            "robustness.eps: pixels lie in [0,1], so linf distances are at most 1 (8 grey levels are written 8/255), "
            f"found {short_repr(distances[-1])}"
        )


def check_names(
    file: ExperimentFile, recipes: dict, teacher_groups: dict[str, dict[str, str]] | None, problems: list[str]
) -> None:
    """Checks the names in `seeds`, `teachers`, `exclude`, `tables`, `compare_to`, `published` and `published_as`.

    Every name must exist in the experiment file or, for `published`, among the stored references. No seed may be named
    twice. The teachers must have every role that a method needs.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).
        recipes: (method, student), such as ("rslad", "small"), to a Recipe: the method with its settings, and the
            training settings. None in place of a Recipe with a mistake.
        teacher_groups: the entries of `teachers` that give several teachers roles, such as {"both": {"robust": "wide",
            "natural": "plain"}}. A role is the name under which a method calls a teacher. None if these entries have
            mistakes, which are reported already; the roles are then not checked.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.
    """
    if len(set(file.seeds)) < len(file.seeds):
        twice = next(seed for seed in file.seeds if file.seeds.count(seed) > 1)
        problems.append(f"seeds: {twice} is named twice")
    if NO_TEACHER in file.teachers:
        problems.append(f"teachers.{NO_TEACHER}: this name is kept for methods that need no teacher; choose another")
    if teacher_groups is not None:  # None: their mistakes are reported already
        _check_roles(file, recipes, teacher_groups, problems)
    groups = {
        "teacher": [*file.teachers, NO_TEACHER],
        "student": [*file.students],
        "method": [*file.methods],
        "seed": [*file.seeds],
    }
    for i, rule in enumerate(file.exclude):
        keys = rule.model_dump(exclude_unset=True)
        if not keys:
            problems.append(f"exclude[{i}]: matches every run. Give a teacher, student, method or seed")
        for key, values in keys.items():
            _check_members(key, values or [], groups[key], f"exclude[{i}].{key}", problems)
    groups["checkpoint"] = file.evaluation.checkpoints
    groups["metric"] = ["clean", *file.evaluation.attacks, *file.evaluation.metrics]
    for name, table in file.tables.items():
        if name in ("main", "structure", "comparisons", "claims", "tuning") or name.startswith("transfer-"):
            problems.append(f"tables.{name}: this name is kept for a table that is always made; choose another")
        for key in ("teacher", "student", "method", "checkpoint", "metric"):
            if (values := getattr(table, f"{key}s")) is not None:
                _check_members(key, values, groups[key], f"tables.{name}.{key}s", problems)
    if file.compare_to is not None and file.compare_to not in (*file.methods, PAIRS):
        problems.append(f"compare_to: {unknown('method', file.compare_to, [*file.methods, PAIRS])}")
    _check_published(file, problems)


def _check_roles(
    file: ExperimentFile, recipes: dict, teacher_groups: dict[str, dict[str, str]], problems: list[str]
) -> None:
    """Checks that every method has teachers for its roles, and that some method has every role."""
    known: set[str] = set()
    checked: set[str] = set()
    for (name, _), recipe in recipes.items():
        if recipe is None or name in checked:
            continue
        checked.add(name)
        roles = set(recipe.method.teachers)
        known |= roles
        if not roles:
            continue
        if not file.teachers:
            problems.append(f"methods.{name}: needs a teacher, but no teacher is given under teachers")
        elif roles != {TEACHER} and not any(roles <= set(group) for group in teacher_groups.values()):
            listed = ", ".join(f"{role}: NAME" for role in sorted(roles))
            problems.append(
                f"methods.{name}: needs teachers in the roles {', '.join(sorted(roles))}: give an entry under "
                f"teachers, such as both: {{roles: {{{listed}}}}}"
            )
        elif roles == {TEACHER} and len(teacher_groups) == len(file.teachers):
            problems.append(f"methods.{name}: needs a teacher, but no teacher is given under teachers")
    if None in recipes.values():
        return
    for name, group in teacher_groups.items():
        for role in group:
            if role not in known:
                where = path_text(("teachers", name, "roles", role))
                problems.append(
                    f"{where}: no method of the experiment has this role: {', '.join(sorted(known)) or 'none'}"
                )


def _check_published(file: ExperimentFile, problems: list[str]) -> None:
    datasets: dict[str, set[str]] = {}
    theirs = set()
    for entry in published.entries():
        datasets.setdefault(entry.reference, set()).add(entry.dataset)
        theirs |= {entry.teacher, entry.student, entry.method} - {published.ANY, NO_TEACHER}
    for reference in file.published:
        if reference not in datasets:
            problems.append(f"published: {unknown('reference', reference, datasets)}")
        elif file.dataset.name not in datasets[reference]:
            about = " and ".join(sorted(datasets[reference]))
            problems.append(f"published: {reference} is about {about}, the experiment about {file.dataset.name}")
    for ours, name in file.published_as.items():
        if ours not in (known := [*file.teachers, *file.students, *file.methods]):
            problems.append(f"{path_text(('published_as', ours))}: {unknown('name', ours, known)}")
        elif name not in theirs:
            problems.append(f"{path_text(('published_as', ours))}: {unknown('published name', name, theirs)}")


def _check_members(kind: str, values: list, allowed: list, where: str, problems: list[str]) -> None:
    if not values:
        problems.append(f"{where}: is empty: name at least one {kind}, or leave it out")
    for value in values:
        if value not in allowed:
            problems.append(f"{where}: {unknown(kind, value, map(str, allowed))}")
