rule fill_cache:
    input:
        data=layout.data,
        teacher=lambda w: teacher_weights(w.teacher),
    output:
        values=layout.cache("{teacher}", "{kind}"),
        description=layout.cache("{teacher}", "{kind}").with_suffix(".json"),
    params:
        settings=lambda w: canonical(experiment.cache_settings(w.teacher, w.kind)),
        code=lambda w: steps.cache_code(experiment, w.teacher),
    log:
        log_of("fill-cache", "{teacher}", "{kind}"),
    threads: experiment.compute.threads
    priority: 90
    shell:
        "robust-distillation fill-cache {wildcards.teacher} {wildcards.kind} {experiment.arguments} > {log} 2>&1"
