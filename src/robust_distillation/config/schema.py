"""The types of an experiment file: meaning, default and allowed values of each setting."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from robust_distillation.attacks.policy import ModelAugmentation
from robust_distillation.data.info import DataOptions
from robust_distillation.settings import (
    Compute,
    Distance,
    Epochs,
    Name,
    Positive,
    Seed,
    Settings,
    ThreatModel,
    mistake,
)

Checkpoint = Literal["best", "last"]


class Limit(Settings):
    """Numbers of images to use, taken from the beginning of each split.

    It is `dataset.limit` in the experiment file. Every field is an integer from 1 on, or None, the default.

    Attributes:
        train: number of training images; None: all.
        validation: number of validation images; None: all.
        test: number of test images; None: all.
    """

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class DataFiles(Settings):
    """A dataset and the location of its files.

    It is the form of `transfer.NAME.dataset` in the experiment file, and a part of `dataset`.

    Attributes:
        name: name of a registered dataset, such as "cifar10"; "image_folder" for your own images.
        size: side in pixels, 4 to 1024, to which every image is resized; None, the default: images keep their size.
        folder: folder of the dataset's files; "data" by default.
        download: whether missing files may be downloaded; True by default.
        verify: whether the files are compared with torchvision's checksums; True by default. False for your own files
            in the same format.
        mirror: URL of the folder to download from, such as "https://example.org/cifar"; None, the default: the original
            one.
        classes: for `image_folder`: names of the classes, needed only before the folder exists; else empty, the
            default.
    """

    name: str
    size: int | None = Field(None, ge=4, le=1024, description="every image is resized to size x size")
    folder: str = Field("data", description="where datasets that are files on disk lie")
    download: bool = Field(True, description="fetch files that are missing")
    verify: bool = Field(
        True, description="compare the files with torchvision's checksums; false for files of one's own"
    )
    mirror: str | None = Field(None, description="URL of the folder to fetch files from instead of the original one")
    classes: list[str] = Field([], description="image_folder: the classes, needed only before the folder is there")

    @property
    def options(self) -> DataOptions:
        """Folder, size, download options and classes in the form that the modules of datasets take."""
        return DataOptions(self.folder, self.size, self.download, self.verify, self.mirror, tuple(self.classes))


class Extra(Settings):
    """Extra training images beside those of the dataset, with or without labels.

    It is `dataset.extra` in the experiment file. One of `file`, `folder` and `rest` is set.

    Attributes:
        file: path of an .npz file with `image` and, where they have labels, `label`.
        folder: path of a folder of images, or of a folder for each class.
        rest: True for the images of the training split that `dataset.limit.train` leaves out.
        share: share of the extra images in each batch, in [0, 1]; 0: as if there were none.
        labels: whether the labels of the source are used; None: where it has some and `labelled_by` is None.
        labelled_by: name of the teacher whose predictions are the labels, for the methods that need labels; None: there
            is none. It is trained without the extra images.
        limit: number of extra images to use, a random subset that is always the same; None: all.
    """

    file: str | None = Field(None, min_length=1, description=".npz with `image` and, where there are labels, `label`")
    folder: str | None = Field(None, min_length=1, description="of images, or of a folder for each class")
    rest: bool = Field(False, description="the training images that dataset.limit.train leaves out")
    share: float = Field(0.7, ge=0, le=1, description="of each batch")
    labels: bool | None = Field(None, description="whether those of the source are used")
    labelled_by: str | None = Field(None, description="the teacher whose predictions are the labels")
    limit: Positive | None = Field(None, description="so many of them, a random subset")

    @model_validator(mode="after")
    def _one_source(self) -> Extra:
        if (self.file is not None) + (self.folder is not None) + self.rest != 1:
            raise mistake("give one of file, folder and rest: true")
        if self.labels and self.labelled_by is not None:
            raise mistake("labels: true means those of the source; leave it out, or labelled_by")
        return self

    @property
    def path(self) -> str | None:
        """The path of the file or folder; None for the rest of the training split."""
        return self.file or self.folder


class DatasetSettings(DataFiles):
    """The dataset of an experiment, the padding of its random crops and the number of its images.

    It is `dataset` in the experiment file. It also has the fields of `DataFiles`: `name` (such as "cifar10"), `size`
    (side in pixels to which images are resized; None: their own size), `folder`, `download`, `verify` (checksums),
    `mirror` (URL in place of the original one; None: none) and `classes` (for `image_folder`).

    Attributes:
        padding: width in pixels, 0 to 16, of the zero padding from which random crops are taken; 0, the default: no
            crops.
        limit: numbers `train`, `validation` and `test` of images to use of each split, the first ones; None, the
            default of each: all.
        extra: extra training images; None: there are none.
    """

    padding: int = Field(0, ge=0, le=16, description="zero padding of the random crops; 0 switches them off")
    limit: Limit = Limit()
    extra: Extra | None = None


class Evaluation(Settings):
    """The attacks on trained networks.

    It is `evaluation` in the experiment file. The last attack and the first checkpoint are those whose numbers
    summaries show.

    Attributes:
        images: number of test images that are attacked, the first ones; None: all.
        attacks: names of the attacks, weakest first, such as ["pgd20", "autoattack"]; `transfer_pgd20` is pgd20 crafted
            on the surrogate, another network, `transfer_augmented_pgd20` the same with gradients averaged over
            transformed copies of the images. The last is the one that summaries show.
        metrics: names METRIC.ATTACK of metrics that the tables show beside the accuracies, such as
            ["worst_class.autoattack"]; empty, the default: none.
        surrogate: name of the teacher on which `transfer_` attacks are crafted; None if there are no such attacks.
        model_augmentation: the transformed copies of `transfer_augmented_` attacks; None if there are none.
        checkpoints: the checkpoints of students that are attacked, `best`, `last` or both. The first is the one that
            summaries show.
        block_size: number of test images that are attacked together as one batch (a block).
        seed: seed from which the seed of the attacks on each block is derived.
        search: precision of the network that is attacked: `fp32`, or `bf16`. The network in fp32 classifies the
            adversarial images, so `bf16` can miss some.
        jobs: number of jobs that share the blocks of one network.
    """

    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    attacks: list[str] = Field(min_length=1)
    metrics: list[str] = Field([], description="METRIC.ATTACK: metrics that the tables show beside the accuracies")
    surrogate: str | None = Field(None, description="the teacher on which transfer_... attacks are crafted")
    model_augmentation: ModelAugmentation | None = Field(
        None, description="the transformed copies over which transfer_augmented_... attacks average their gradients"
    )
    checkpoints: list[Checkpoint] = Field(["best", "last"], min_length=1)
    block_size: Positive = Field(100, description="images attacked together under one seed")
    seed: Seed = 0
    search: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="precision of the network that is attacked; the network in fp32 classifies the adversarial images, "
        "so bf16 can miss some: every table says so",
    )
    jobs: Positive = Field(1, description="jobs that share the blocks of one run")


class Structure(Settings):
    """The comparison of teacher and student: correlations of the logits of the classes, and features under attack.

    It is `structure` in the experiment file.

    Attributes:
        images: number of test images, the first ones; None, the default: all.
    """

    images: Positive | None = Field(None, description="the first images of the test split; all where left out")


class Robustness(Settings):
    """The measurement of accuracy at several sizes eps of the perturbation, and a gallery of attacked images.

    It is `robustness` in the experiment file.

    Attributes:
        eps: sizes of the perturbation in the norm of the threat model, positive and ascending; texts such as "8/255"
            are converted. 0 is always measured.
        images: number of test images, the first ones; None: all.
        gallery: number of images that are stored, attacked at the eps of the threat model.
    """

    eps: list[Distance] = Field(min_length=1, description="ascending; 0 is always measured")
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    gallery: int = Field(6, ge=1, le=100, description="so many of them are stored, attacked at the threat model's eps")


class Transfer(Settings):
    """Transfer to another dataset: a linear head is trained on the frozen backbone, and both are attacked end to end.

    It is `transfer.NAME` in the experiment file, where NAME is chosen freely, such as "parity".

    Attributes:
        dataset: name of the other dataset, such as "digits_parity", and the location of its files, a DataFiles. Its
            images must have the shape of the experiment's images.
        epochs: number of epochs of the head's training.
        batch_size: number of images per optimisation step of the head's training.
        learning_rate: learning rate of the first epoch; it falls along a half cosine.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: weight decay of SGD, at least 0.
        attacks: names of the attacks, weakest first.
        images: number of test images that are attacked, the first ones; None: all.
    """

    dataset: DataFiles
    epochs: Epochs
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    attacks: list[str] = Field(min_length=1)
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")


Names = list[str] | None


class Table(Settings):
    """A part of the main table (results/EXPERIMENT/tables/main.csv) under a title.

    It is `tables.NAME` in the experiment file and is written to tables/NAME.csv. Each list selects rows or columns by
    name; None, the default, selects all.

    Attributes:
        title: the title, a text of 1 to 300 characters.
        teachers: names of teachers.
        students: names of students.
        methods: names of methods.
        checkpoints: `best`, `last`.
        metrics: `clean`, names of attacks, and METRIC.ATTACK such as `worst_class.autoattack`.
    """

    title: str = Field(min_length=1, max_length=300)
    teachers: Names = None
    students: Names = None
    methods: Names = None
    checkpoints: Names = None
    metrics: Names = None


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


class Exclusion(Settings):
    """Runs (trainings of students) to leave out: those that match all keys that are set.

    It is an element of `exclude` in the experiment file, such as {"method": ["iad"], "seed": [2]}. Each key is a list;
    a single value in the experiment file is read as a list of one. A key that is None, the default, matches every run.

    Attributes:
        teacher: names of teachers; `none` for methods without a teacher.
        student: names of students.
        method: names of methods.
        seed: seeds.
    """

    teacher: Annotated[Names, BeforeValidator(_listed)] = None
    student: Annotated[Names, BeforeValidator(_listed)] = None
    method: Annotated[Names, BeforeValidator(_listed)] = None
    seed: Annotated[list[int] | None, BeforeValidator(_listed)] = None


class Imported(Settings):
    """A source of published weights of a teacher; docs/importing.md lists the known ones.

    It is `teachers.NAME.imported` in the experiment file.

    Attributes:
        source: name of a known source, such as "trades_wrn_34_10"; "file" for your own file; "robustbench" for a model
            of RobustBench's zoo.
        file: path of the file; None: the file under `models/` with the usual name of the source.
        sha256: expected sha256 of the file, 64 hexadecimal digits; None: the hash that is known from the source or from
            the first import, if any.
        normalisation: name of the mean and standard deviation by which the images are normalised, such as "cifar10", or
            "none"; None: that of the source.
        model: for "robustbench": the name in its model zoo; else None.
    """

    source: str
    file: str | None = Field(None, description="where the file lies; the source's own name under models/ if left out")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    normalisation: str | None = Field(None, description="another than the source's")
    model: str | None = Field(None, description="robustbench: the name in its model zoo")


class TeacherEntry(Settings):
    """Keys of an entry under `teachers` in the experiment file. All other keys of the entry are arguments of its
    architecture.

    Attributes:
        roles: for an entry that names several teachers and has no network of its own, such as `pair: {roles: {robust:
            wide, natural: resnet}}`: role (the name under which a method calls one of its teachers) to the name of a
            teacher. Else None.
        trained_by: name of the training method under `method`, and its settings, such as {"method": "trades", "beta":
            6.0}; None for an imported teacher.
        imported: source of published weights; None for a teacher that is trained.
        seed: seed of the training.
        checkpoint: the checkpoint that students learn from: `best` or `last`.
        devices: number of devices that train it together; they share each batch.
        batch_norm: `synchronised`: statistics over the batch of all devices. `local`: over the share of each device.
        training: training settings that differ from those under `training` in the experiment file, such as {"epochs":
            100}.
    """

    roles: dict[Name, Name] | None = Field(
        None, description="no network of its own: the teachers that stand in each role of a method with several"
    )
    trained_by: dict[str, Any] | None = None
    imported: Imported | None = None
    seed: Seed = 0
    checkpoint: Checkpoint = "best"
    devices: Positive = Field(1, description="that train it together; the batch is shared out among them")
    batch_norm: Literal["synchronised", "local"] = Field("synchronised", description="over the batch, or each share")
    training: dict[str, Any] = Field({}, description="what differs from the budget of the students")


def _claimed(value: Any) -> Any:
    return {"claim": value} if isinstance(value, str) else value


class ClaimEntry(Settings):
    """A claim, a sentence of the experiment file such as `rslad > ard on autoattack`, judged by the results.

    It is `claims.NAME` in the experiment file, where a text stands for {"claim": text}.

    Attributes:
        claim: the sentence, `A > B on METRIC [at best|last] [by X]`, such as "rslad > ard on autoattack".
        teachers: names of the teachers for which it is tested; None: all with trainings of both methods A and B.
        students: names of the students for which it is tested; None: all with trainings of both methods A and B.
        paper: what the paper says, as text; "" if nothing.
    """

    claim: str = Field(min_length=1, max_length=300, description="A > B on METRIC [at best|last] [by X]")
    teachers: Names = None
    students: Names = None
    paper: str = Field("", max_length=1000, description="what the paper says, in our words")


Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]


class Tuning(Settings):
    """The tuning stage of the controlled protocol.

    Before its students, every method has the same number of short runs. The students are trained with the values of the
    run with the highest accuracy on the validation split.

    It is `tuning` in the experiment file.

    Attributes:
        training: training settings that differ in the short runs, such as {"epochs": 7}.
        grid: name of a training setting to the values to compare, the same for every method, such as {"learning_rate":
            [0.1, 0.2]}. All combinations are tried.
        methods: name of a method to a grid of its own, such as {"trades": {"beta": [3.0, 6.0]}}: values of the method's
            settings, or of training settings in place of those in `grid`.
        seed: seed of the short runs. They share no random numbers with any student.
    """

    training: dict[str, Any] = Field({}, description="what differs from the budget in the short runs")
    grid: Grid = Field({}, description="values of the budget to compare, the same for every method")
    methods: dict[Name, Grid] = Field(
        {}, description="of a method: values of its settings, or of the budget in place of those in `grid`"
    )
    seed: Seed = Field(0, description="of the short runs; they share no random numbers with any student")


class ExperimentFile(Settings):
    """The top level of an experiment file (YAML).

    Attributes:
        name: name of the experiment and of its folder below `results`.
        protocol: `controlled` (the same budget for every method) or `official` (the settings of the released codes).
        dataset: the dataset, its augmentation and the number of its images.
        threat_model: norm and eps of the attacks.
        training: training settings of every student, as in `settings.Training`. Under the official protocol: those that
            differ from the released codes.
        compute: settings of the computation: precision, device, threads.
        evaluation: the attacks on trained networks.
        seeds: seeds of the trainings of students, at least one.
        teachers: name of a teacher to the keys of `TeacherEntry` and the arguments of its architecture.
        students: name of a student to `architecture` (default: the student's name) and the arguments of that
            architecture.
        methods: name of a method to `method` (its name in the registry; default: the same name) and its settings. None:
            all defaults. Under the official protocol also `training`.
        exclude: trainings to leave out.
        tuning: the tuning stage; None: no tuning.
        structure: the analysis of class correlations and feature distances; None: it is not made.
        robustness: the measurement of accuracy against eps; None: it is not made.
        transfer: name of a transfer to its dataset and settings; empty: no transfer.
        published: names of the references whose numbers the tables are compared to, such as "rslad_cifar10_white_box".
        published_as: name of a teacher, student or method of this experiment to its name in the references.
        tables: name of an additional table (tables/NAME.csv) to the part of the main table that it shows.
        claims: name of a claim to the claim, a sentence such as "rslad > ard on autoattack" that is tested on the
            results. In the file a text stands for {"claim": text}.
        compare_to: name of the method that all others are compared to, or "pairs" to compare every two; None: the
            method without a teacher that is best on the validation split.
    """

    name: Name
    protocol: Literal["controlled", "official"]
    dataset: DatasetSettings
    threat_model: ThreatModel
    training: dict[str, Any] = Field({})
    compute: Compute = Compute()
    evaluation: Evaluation
    seeds: list[Seed] = Field(min_length=1)
    teachers: dict[Name, dict[str, Any] | None] = Field({})
    students: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    methods: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    exclude: list[Exclusion] = Field([])
    tuning: Tuning | None = None
    structure: Structure | None = None
    robustness: Robustness | None = None
    transfer: dict[Name, Transfer] = Field({})
    published: list[str] = Field([], description="references that the tables are compared to")
    published_as: dict[str, str] = Field({}, description="the names of ours that are called otherwise there")
    tables: dict[Name, Table] = Field({})
    claims: dict[Name, Annotated[ClaimEntry, BeforeValidator(_claimed)]] = Field({})
    compare_to: str | None = Field(None, description="the method that all others are compared to, or `pairs`")
