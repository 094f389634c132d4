"""Names the columns of outcomes and tables, and the special values in them.

Outcomes are a table about trained networks: one row per network (a student or a teacher, trained with one seed),
checkpoint and test image, with one boolean column per attack. An entry is true if the network classifies the clean and
the attacked image correctly. Behind these columns stand `confidence` (softmax probability of the class predicted for
the clean image) and, for each attack, `ATTACK.prediction` and `ATTACK.confidence` (class predicted for the attacked
image, and its probability). The other tables hold accuracies, other metrics and what is computed from them.

- `teacher`: name of the teacher, such as `wide`, or of an entry of the experiment file that names several teachers;
  `none` if the method needs no teacher.
- `student`: name of the student; `-` in a row about a teacher.
- `method`: name of the method by which the student was trained, such as `rslad`. In a row about a teacher it is the
  method by which the teacher was trained or, if its weights were imported, the name of their source.
- `seed`: seed of the training, an integer.
- `checkpoint`: `best`, `last`, or `imported` for a teacher with imported weights.
- `metric`: `clean` for the accuracy without an attack, the name of an attack for that under it, such as `autoattack`,
  or METRIC.ATTACK for another metric, such as `worst_class.autoattack`. Some tables have further metrics.
- `protocol`: `controlled` (every method is trained with equal settings) or `official` (with those of its authors).
- `epoch`: number of the training epoch, from 1.
- `n_seeds`, `n_images`: number of seeds, and of test images per seed, behind a mean.
- `mean`, `sd`, `ci_low`, `ci_high`: mean over the seeds, the sample standard deviation of the seeds' values, and the
  bounds of the 95 % confidence interval of the mean. Accuracies are in percent, other metrics in their unit.
"""

NO_TEACHER = "none"  # `teacher` of methods that need none; also in paths
PAIRS = "pairs"  # value of `compare_to` in an experiment file: every two methods are compared
TEACHER_ROW = "-"  # `student` in the rows of a teacher; its `method` is what trained it
ON_SURROGATE = "transfer_"  # before an attack's name: it is crafted on the surrogate
AUGMENTED = f"{ON_SURROGATE}augmented_"  # instead of it: with gradients averaged over transformed copies of the images

TEACHER, STUDENT, METHOD, SEED = "teacher", "student", "method", "seed"
CHECKPOINT, METRIC, PROTOCOL = "checkpoint", "metric", "protocol"
EPOCH = "epoch"
CONFIDENCE = "confidence"  # of the prediction for the clean image

MODEL = [TEACHER, STUDENT, METHOD]  # a method's students, whatever their seed
RUN = [*MODEL, SEED]  # one training
NETWORK = [*RUN, CHECKPOINT]  # the keys of outcomes: one set of weights
GROUP = [*MODEL, CHECKPOINT]  # the seeds that a mean is taken over
CELL = [*GROUP, METRIC]  # the keys of a row of a table over the seeds
ROW_KEYS = [*MODEL, PROTOCOL, CHECKPOINT, METRIC]  # CELL in the column order of the tables' files
SPREAD = ["n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high"]


def attack_of(name: str) -> str:
    """Returns the registered name of an attack, such as `pgd20` for `transfer_pgd20` and `transfer_augmented_pgd20`.

    Args:
        name: name of an attack in an experiment file.
    """
    return name.removeprefix(AUGMENTED if name.startswith(AUGMENTED) else ON_SURROGATE)


def prediction_of(attack: str) -> str:
    """Returns the name of the column with the predicted classes under an attack, such as `pgd20.prediction`.

    Args:
        attack: name of the attack, such as `pgd20`.
    """
    return f"{attack}.prediction"


def confidence_of(attack: str) -> str:
    """Returns the name of the column with the confidences under an attack, such as `pgd20.confidence`.

    The confidence is the softmax probability of the class that is predicted for the attacked image.

    Args:
        attack: name of the attack, such as `pgd20`.
    """
    return f"{attack}.confidence"
