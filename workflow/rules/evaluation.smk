"""Attacks: one job for all blocks of a model, or `evaluation.jobs` jobs and one that puts their outcomes together.
{trained} is the folder of a model: teachers/TEACHER or students/TEACHER/STUDENT/METHOD/seed-N."""

TRAINED = layout.root / "{trained}"
SHARDED = experiment.shards > 1


def model_of(wildcards):
    """The model's name on the command line."""
    return wildcards.trained.partition("/")[2]


def attacked(wildcards):
    """Architecture and names of the checkpoints to attack."""
    kind, *names = wildcards.trained.split("/")
    if kind == "teachers":
        teacher = experiment.teachers[names[0]]
        return teacher.architecture, [teacher.checkpoint]
    return experiment.students[names[1]], experiment.evaluation.checkpoints


rule attack:
    input:
        data=layout.data,
        checkpoints=lambda w: [layout.root / w.trained / f"{name}.safetensors" for name in attacked(w)[1]],
    output:
        outcomes=layout.shard(TRAINED, "{shard}") if SHARDED else layout.outcomes(TRAINED),
        record=layout.record(layout.shard(TRAINED, "{shard}") if SHARDED else layout.outcomes(TRAINED)),
    log:
        log_of("attack", "{trained}", *(["{shard}"] if SHARDED else [])),
    wildcard_constraints:
        trained="(teachers/[^/]+|students/[^/]+/[^/]+/[^/]+/seed-[0-9]+)",
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.attack_settings(list(attacked(w)[1]))),
        code=lambda w: steps.attack_code(experiment, attacked(w)[0]),
        model=model_of,
        shard="--shard {shard}" if SHARDED else "",
    shell:
        "robust-distillation attack {params.model} {params.shard} {experiment.arguments} > {log} 2>&1"


if SHARDED:

    rule merge_outcomes:
        input:
            [layout.shard(TRAINED, f"{i}-of-{experiment.shards}") for i in range(1, experiment.shards + 1)],
        output:
            outcomes=layout.outcomes(TRAINED),
            record=layout.record(layout.outcomes(TRAINED)),
        log:
            log_of("merge-outcomes", "{trained}"),
        wildcard_constraints:
            trained="(teachers/[^/]+|students/[^/]+/[^/]+/[^/]+/seed-[0-9]+)",
        params:
            code=steps.merge_code(),
            model=model_of,
        shell:
            "robust-distillation merge-outcomes {params.model} {experiment.arguments} > {log} 2>&1"
