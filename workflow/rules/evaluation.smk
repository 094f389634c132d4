"""Attacks: one job for all blocks of a model, or `evaluation.jobs` jobs and one that puts their outcomes together."""

SHARDED = experiment.shards > 1


rule attack:
    input:
        data=layout.data,
        checkpoints=lambda w: looked_at(w)[1],
        surrogate=[teacher_weights(experiment.surrogate)] if experiment.surrogate else [],
    output:
        outcomes=layout.shard(TRAINED, "{shard}") if SHARDED else layout.outcomes(TRAINED),
        record=layout.record(layout.shard(TRAINED, "{shard}") if SHARDED else layout.outcomes(TRAINED)),
    log:
        log_of("attack", "{trained}", *(["{shard}"] if SHARDED else [])),
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.attack_settings([path.stem for path in looked_at(w)[1]])),
        code=lambda w: steps.attack_code(experiment, looked_at(w)[0]),
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
        params:
            code=steps.merge_code(),
            model=model_of,
        shell:
            "robust-distillation merge-outcomes {params.model} {experiment.arguments} > {log} 2>&1"
