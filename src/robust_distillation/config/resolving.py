"""Makes the experiment from a parsed file: looks up every name, fills in every default, checks every value."""

from __future__ import annotations

from typing import Any

from robust_distillation import augmentations, methods, models
from robust_distillation.config.checking import (
    IMAGE_FOLDER,
    check_analyses,
    check_evaluation,
    check_extra,
    check_extra_labels,
    check_images,
    check_names,
    data_info,
    selection_metrics,
    split_sizes,
)
from robust_distillation.config.claims import check_claims, claims_of, without_teacher
from robust_distillation.config.experiment import (
    IMPORTED,
    Experiment,
    NamedMethod,
    Recipe,
    Teacher,
)
from robust_distillation.config.parsing import deep_merge, parse, path_text
from robust_distillation.config.schema import ExperimentFile, Imported, TeacherEntry
from robust_distillation.config.tuning import tuning_candidates
from robust_distillation.errors import UserError, short_repr, unknown
from robust_distillation.reference import checkpoints
from robust_distillation.settings import Training

# What a method's own `training` may change under the controlled protocol: these cost at most one more pass, and every
# method may have them. Epochs, batches, learning rate and attack are the budget, which all share.
TRICKS = ("averaging", "weight_perturbation", "label_smoothing", "augmentation")


def resolve(raw: dict, arguments: str, problems: list[str]) -> Experiment | None:
    """Resolves the content of an experiment file: checks every value, and fills in every default.

    Users call `config.load`, which reads the files, calls this function and raises an error if there are mistakes.

    Args:
        raw: the content of the YAML file as a dict, with the overlay (a second file whose values take precedence)
            merged in.
        arguments: the command line options that load this experiment again, such as "--experiment params.yaml". They
            are kept as `experiment.arguments`.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice". The returned
            experiment must not be used if the list is not empty.

    Returns:
        The experiment with all defaults filled in; None if a mistake prevents it.
    """
    file = parse(ExperimentFile, raw, (), problems)
    if file is None:
        return None
    info = data_info(file.dataset, ("dataset",), problems)
    classes = len(info.classes) if info else 10
    sizes = split_sizes(file, info) if info else {}
    if file.protocol == "official" and file.threat_model.norm != "linf":
        norm = file.threat_model.norm
        problems.append(f"threat_model.norm: {norm} has no official protocol: use linf, or protocol: controlled")
        return None
    images, shape = file.dataset.limit.train or sizes.get("train"), info.shape if info else None
    resolver = _Resolver(file, classes, shape, images, problems)
    before = len(problems)
    groups = resolver.groups()
    sound = len(problems) == before
    teachers = {
        name: resolver.teacher(name, entry or {}) for name, entry in file.teachers.items() if name not in groups
    }
    students = {
        name: resolver.architecture(entry or {}, name, ("students", name)) for name, entry in file.students.items()
    }
    recipes = {}
    for name, entry in file.methods.items():
        for student, architecture in students.items():
            before = len(problems)
            recipes[name, student] = resolver.recipe(entry or {}, name, architecture, ("methods", name))
            if len(problems) > before:
                break  # the same mistake would be named for every student
    check_images(file, sizes, problems)
    check_extra(file, info, [name for name in file.teachers if name not in groups], problems)
    check_evaluation(file, classes, problems)
    check_analyses(file, info, problems)
    check_names(file, recipes, groups if sound else None, problems)
    check_claims(file, problems)
    candidates = tuning_candidates(
        file, recipes, lambda budget: _parsed_training(budget, file.threat_model.norm, images, shape), problems
    )
    if problems:
        return None
    experiment = Experiment(file, teachers, groups, students, recipes, arguments, candidates)
    check_extra_labels(experiment, problems)
    if not experiment.runs:
        problems.append("exclude: leaves no run")
    problems += [
        f"claims.{claim.name}: covers no teacher and student for which both methods are trained"
        for claim in claims_of(experiment)
        if not claim.comparisons
    ]
    problems += without_teacher(experiment)
    return experiment


class _Resolver:
    """Resolves the entries of one experiment file, and collects their mistakes."""

    def __init__(
        self,
        file: ExperimentFile,
        classes: int,
        shape: tuple[int, int, int] | None,
        images: int | None,
        problems: list[str],
    ):
        """Keeps what all entries share.

        Args:
            file: the parsed experiment file.
            classes: number of classes.
            shape: (C, H, W) of the images; None if it is not known.
            images: number of training images; None if it is not known.
            problems: list to which one message per mistake is added.
        """
        self.file, self.classes, self.shape, self.images, self.problems = file, classes, shape, images, problems
        self.budget_reported = False  # True once mistakes in the experiment's `training` are among the problems
        if file.protocol == "controlled" and not file.training:
            problems.append("training: is missing")

    def recipe(
        self, entry: dict, default: str, architecture: dict, where: tuple, own: dict | None = None
    ) -> Recipe | None:
        """Resolves a method and its training settings; None after a mistake.

        The settings are those of the released code under the official protocol, changed by the experiment's, changed by
        `own`.

        Args:
            entry: the method's settings, with `method` and `training` where given.
            default: name of the method if the entry has no `method`.
            architecture: the architecture that is trained.
            where: keys that lead to the entry in the experiment file.
            own: training settings of this entry only; None: the entry's `training`.
        """
        owner = where if own is None else where[:-1]
        if own is None:
            own = entry.get("training", {})
            entry = {key: value for key, value in entry.items() if key != "training"}
        named = (*where, "method") if "method" in entry else where
        kind, entry = entry.get("method", default), {key: value for key, value in entry.items() if key != "method"}
        try:
            if not isinstance(kind, str):
                raise UserError(unknown("method", kind, methods.names()))
            method = methods.get(kind)
        except UserError as error:
            self.problems.append(f"{path_text(named)}: {error}")
            return None
        base, settings = {}, entry
        if self.file.protocol == "official":
            official = method.official(self.classes, architecture.get("name", ""))
            if official is None:
                self.problems.append(
                    f"{path_text(named)}: {kind} has no official protocol: leave it out, or use protocol: controlled"
                )
                return None
            base, settings = official.training, {**official.settings, **entry}
        elif isinstance(own, dict) and owner == where and set(own) - set(TRICKS):
            self.problems.append(
                f"{path_text((*where, 'training'))}: under the controlled protocol all methods share one budget; "
                f"methods may differ in {', '.join(TRICKS)}, found {', '.join(sorted(set(own) - set(TRICKS)))}"
            )
            return None
        if not isinstance(own, dict):
            self.problems.append(
                f"{path_text((*where, 'training'))}: input should be a mapping, found {short_repr(own)}"
            )
            return None
        parsed = parse(method, settings, where, self.problems)
        training = self._training(deep_merge(base, self.file.training), own, (*owner, "training"))
        return None if parsed is None or training is None else Recipe(NamedMethod(kind, parsed), training)

    def _training(self, budget: dict, own: dict, where: tuple) -> Training | None:
        """Merges `own` into the training settings `budget`; a mistake in `budget` is named only once."""
        if not budget:
            return None  # reported as missing by __init__
        training, problems = self._parsed(deep_merge(budget, own))
        if problems:
            _, shared = self._parsed(budget)
            self.problems += [f"{path_text(where)}.{problem}" for problem in problems if problem not in shared]
            if not self.budget_reported and (repeated := [problem for problem in problems if problem in shared]):
                self.problems += [f"training.{problem}" for problem in repeated]
                self.budget_reported = True
        return None if problems else training

    def _parsed(self, budget: dict) -> tuple[Training | None, list[str]]:
        return _parsed_training(budget, self.file.threat_model.norm, self.images, self.shape)

    def groups(self) -> dict[str, dict[str, str]]:
        """Returns the entries that give teachers roles: name -> role -> name of a teacher."""
        groups = {name: entry for name, entry in self.file.teachers.items() if entry and "roles" in entry}
        alone = [name for name in self.file.teachers if name not in groups]
        found = {}
        for name, entry in groups.items():
            where = ("teachers", name)
            own = parse(TeacherEntry, {"roles": entry["roles"]}, where, self.problems)
            for key in entry:
                if key != "roles":
                    path = path_text((*where, key))
                    self.problems.append(f"{path}: means nothing beside roles, which name other teachers; leave it out")
            found[name] = {}
            if own is None:
                continue
            if not own.roles:
                self.problems.append(f"{path_text((*where, 'roles'))}: is empty: give each role the name of a teacher")
            for role, teacher in (own.roles or {}).items():
                if not alone:
                    self.problems.append(f"{path_text((*where, 'roles', role))}: no entry trains or imports a teacher")
                elif teacher not in alone:
                    self.problems.append(f"{path_text((*where, 'roles', role))}: {unknown('teacher', teacher, alone)}")
            found[name] = own.roles or {}
        return found

    def teacher(self, name: str, entry: dict) -> Teacher | None:
        """Resolves an entry under `teachers`; None after a mistake."""
        where, before = ("teachers", name), len(self.problems)
        keys = list(TeacherEntry.model_fields)
        own = parse(TeacherEntry, {key: value for key, value in entry.items() if key in keys}, where, self.problems)
        arguments = {key: value for key, value in entry.items() if key not in keys}
        if own is None:
            return None
        if own.trained_by is None and own.imported is None:
            self.problems.append(f"{path_text(where)}.trained_by: is missing, and so is imported: give one of them")
            return None
        if own.trained_by is not None and own.imported is not None:
            self.problems.append(f"{path_text(where)}: is either trained_by or imported, not both")
            return None
        if own.imported:
            return self._imported(name, own.imported, entry, arguments)
        if own.devices > 1 and (device := self.file.compute.device).startswith("cuda"):
            self.problems.append(
                f"{path_text(where)}.devices: {own.devices} are to train it, but compute.device {device} is one GPU; "
                "let each take its own: auto"
            )
        architecture = self.architecture(arguments, name, where, besides=keys)
        if "method" not in own.trained_by:
            self.problems.append(f"{path_text(where)}.trained_by.method: is missing")
            return None
        recipe = self.recipe(own.trained_by, "", architecture, (*where, "trained_by"), own.training)
        if recipe and recipe.method.has_teacher:
            kind = recipe.method.kind
            self.problems.append(f"{path_text(where)}.trained_by.method: {kind!r} needs a teacher of its own")
        if len(self.problems) > before or recipe is None:
            return None
        return Teacher(architecture, recipe, None, own.seed, own.checkpoint, own.devices, own.batch_norm)

    def _imported(self, name: str, chosen: Imported, entry: dict, arguments: dict) -> Teacher | None:
        where, before = ("teachers", name), len(self.problems)
        for key in ("training", "checkpoint", "seed", "devices", "batch_norm"):
            if key in entry:
                self.problems.append(f"{path_text((*where, key))}: means nothing for an imported teacher; leave it out")
        if chosen.source not in checkpoints.names():
            problem, _, _ = unknown("source", chosen.source, checkpoints.names()).partition(" Allowed:")
            # The others are two dozen long names.
            allowed = f"{checkpoints.OWN_FILE}, {checkpoints.ROBUSTBENCH}, and those in docs/importing.md"
            self.problems.append(f"{path_text(where)}.imported.source: {problem} Allowed: {allowed}")
            return None
        if chosen.normalisation not in (None, "none", *checkpoints.NORMALISATIONS):
            allowed = ["none", *checkpoints.NORMALISATIONS]
            problem = unknown("normalisation", chosen.normalisation, allowed)
            self.problems.append(f"{path_text(where)}.imported.normalisation: {problem}")
        base, useless = {}, ["model"] if chosen.model else []
        if chosen.source == checkpoints.ROBUSTBENCH:
            if not chosen.model:
                self.problems.append(
                    f"{path_text(where)}.imported.model: is missing: the name in RobustBench's model zoo"
                )
            base = {"architecture": "robustbench", "model": chosen.model or "", "threat": self.file.threat_model.norm}
            useless = [key for key in ("file", "normalisation") if getattr(chosen, key)]
            for key in arguments:
                self.problems.append(
                    f"{path_text((*where, key))}: means nothing for a model of RobustBench's zoo; leave it out"
                )
            arguments = {}
        elif chosen.source == checkpoints.OWN_FILE:
            if not chosen.file:
                self.problems.append(f"{path_text(where)}.imported.file: is missing: where the weights lie")
        else:
            found = checkpoints.SOURCES[chosen.source].architecture
            base = {**{key: value for key, value in found.items() if key != "name"}, "architecture": found["name"]}
            if "architecture" in arguments:
                self.problems.append(f"{path_text(where)}.architecture: is the source's, {found['name']}; leave it out")
                return None
        self._check_source(chosen, where)
        for key in useless:
            self.problems.append(f"{path_text(where)}.imported.{key}: means nothing for {chosen.source}; leave it out")
        architecture = self.architecture({**base, **arguments}, name, where, besides=list(TeacherEntry.model_fields))
        return None if len(self.problems) > before else Teacher(architecture, None, chosen, 0, IMPORTED)

    def _check_source(self, chosen: Imported, where: tuple) -> None:
        """Checks that the weights are for the experiment's dataset: each dataset orders its classes in its own way."""
        ours, source = self.file.dataset.name, checkpoints.SOURCES.get(chosen.source)
        named = f"{path_text(where)}.imported"
        if source and ours not in (source.dataset, IMAGE_FOLDER):
            self.problems.append(f"{named}.source: {chosen.source} is for {source.dataset}, the experiment for {ours}")
        if chosen.source == checkpoints.ROBUSTBENCH and ours not in checkpoints.NORMALISATIONS:
            self.problems.append(f"{named}.source: RobustBench's zoo is for cifar10 and cifar100, found {ours}")
        if chosen.source == checkpoints.ROBUSTBENCH and self.file.transfer:
            self.problems.append(
                f"{named}.source: a model of RobustBench's zoo can be given no new head: leave out transfer"
            )
        if chosen.normalisation in checkpoints.NORMALISATIONS and (self.shape or (3,))[0] != 3:
            self.problems.append(f"{named}.normalisation: {chosen.normalisation} is for colour images")

    def architecture(self, arguments: dict, default: str, where: tuple, besides: tuple | list = ()) -> dict[str, Any]:
        """Returns `{"name": ..., **all arguments}` of an architecture; checks the type of each, and that numbers are
        positive.
        """
        problems = self.problems
        named = (*where, "architecture") if "architecture" in arguments else where
        name = arguments.get("architecture", default)
        arguments = {key: value for key, value in arguments.items() if key != "architecture"}
        try:
            if not isinstance(name, str):
                raise UserError(unknown("architecture", name, models.names()))
            known = models.arguments(name)
        except UserError as error:
            problems.append(f"{path_text(named)}: {error}")
            return {}
        for key, value in arguments.items():
            here, argument = path_text((*where, key)), known.get(key)
            if argument is None:
                problems.append(f"{here}: {unknown('key', key, [*known, 'architecture', *besides])}")
            elif type(value).__name__ != argument.type:
                problems.append(f"{here}: input should be of type {argument.type}, found {short_repr(value)}")
            elif argument.choices and value not in argument.choices:
                allowed = ", ".join(map(str, argument.choices))
                problems.append(f"{here}: input should be one of {allowed}, found {short_repr(value)}")
            elif argument.type in ("int", "float") and value <= 0:
                problems.append(f"{here}: input should be greater than 0, found {short_repr(value)}")
            elif argument.type == "int" and value > models.LARGEST:
                problems.append(f"{here}: input should be at most {models.LARGEST}, found {short_repr(value)}")
        return {"name": name, **{key: arguments.get(key, argument.default) for key, argument in known.items()}}


def _augmentation(
    settings: dict[str, Any], shape: tuple[int, int, int] | None, problems: list[str]
) -> dict[str, Any] | None:
    """Returns name and options of an augmentation, completed by the defaults; None after a mistake."""
    name, options = settings.get("name"), {key: value for key, value in settings.items() if key != "name"}
    if name is None:
        problems.append("augmentation.name: is missing")
        return None
    try:
        if not isinstance(name, str):
            raise UserError(unknown("augmentation", name, augmentations.names()))
        parsed = parse(augmentations.get(name), options, ("augmentation",), problems)
    except UserError as error:
        problems.append(f"augmentation.name: {error}")
        return None
    if parsed is None:
        return None
    if shape and (problem := parsed.problem(shape)):
        problems.append(f"augmentation.{problem}")
    return {"name": name, **parsed.model_dump()}


def _parsed_training(
    budget: dict, norm: str, images: int | None, shape: tuple[int, int, int] | None
) -> tuple[Training | None, list[str]]:
    """Returns the training settings, or None, and the messages of all mistakes without the path to the settings.

    Args:
        budget: the settings.
        norm: norm of the threat model.
        images: number of training images; None if it is not known.
        shape: (C, H, W) of the images; None if it is not known.
    """
    problems: list[str] = []
    training = parse(Training, budget, (), problems)
    if training is None:
        return None, problems
    training = training.model_copy(update={"augmentation": _augmentation(training.augmentation, shape, problems)})
    milestones, attack = training.milestones, training.inner_attack
    if milestones != sorted(set(milestones)):
        problems.append(f"milestones: {str(milestones)[:80]} must be ascending")
    elif milestones and milestones[-1] >= training.epochs:
        problems.append(f"milestones: {milestones[-1]} is never reached in {training.epochs} epochs")
    if training.drop_last and images and training.batch_size > images:
        problems.append(
            f"batch_size: {training.batch_size} is more than the {images} training images, and drop_last leaves out "
            "batches that are smaller"
        )
    for key in ("eps", "step_size"):
        if norm == "linf" and (getattr(attack, key) or 0) > 1:
            problems.append(
                f"inner_attack.{key}: pixels lie in [0,1], so linf distances are at most 1 (8 grey levels are written "
                f"8/255), found {short_repr(getattr(attack, key))}"
            )
    selection = training.selection
    if norm != "linf" and selection.attack != "apgd":
        problems.append(f"selection.by: {selection.attack} is not defined for the norm {norm}")
    if selection.metric and selection.metric not in (allowed := selection_metrics()):
        problems.append(f"selection.by: {unknown('metric', selection.metric, allowed)}")
    return training, problems
