"""Names the columns of outcomes and tables, and the values that stand for something else in them."""

NO_TEACHER = "none"  # `teacher` of methods that need none; also in paths
TEACHER_ROW = "-"  # `student` in the rows of a teacher; its `method` is what trained it
ON_SURROGATE = "transfer_"  # before an attack's name: it is crafted on the surrogate

TEACHER, STUDENT, METHOD, SEED = "teacher", "student", "method", "seed"
CHECKPOINT, METRIC, PROTOCOL = "checkpoint", "metric", "protocol"
EPOCH = "epoch"

MODEL = [TEACHER, STUDENT, METHOD]  # a method's students, whatever their seed
RUN = [*MODEL, SEED]  # one training
NETWORK = [*RUN, CHECKPOINT]  # the keys of outcomes: one set of weights
GROUP = [*MODEL, CHECKPOINT]  # the seeds that a mean is taken over
CELL = [*GROUP, METRIC]  # the keys of a row of a table over the seeds
ROW_KEYS = [*MODEL, PROTOCOL, CHECKPOINT, METRIC]  # CELL in the column order of the tables' files
SPREAD = ["n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high"]
