rule fill_cache:
    input:
        data=layout.data,
        teacher=lambda w: teacher_weights(w.teacher),
    output:
        values=layout.cache("{teacher}", "{kind}"),
        description=layout.cache("{teacher}", "{kind}").with_suffix(".json"),
        record=layout.cache_record("{teacher}", "{kind}"),
    log:
        log_of("fill-cache", "{teacher}", "{kind}"),
    priority: 90
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.cache_settings(w.kind)),
        code=lambda w: steps.cache_code(experiment, w.teacher),
    shell:
        "robust-distillation fill-cache {wildcards.teacher} {wildcards.kind} {experiment.arguments} > {log} 2>&1"
