"""Names the values that stand for something else in the columns of outcomes and tables."""

NO_TEACHER = "none"  # `teacher` of methods that need none; also in paths
ITSELF = "-"  # `student` in the rows of a teacher; its `method` is what trained it
ON_SURROGATE = "transfer_"  # before an attack's name: it is crafted on the surrogate
