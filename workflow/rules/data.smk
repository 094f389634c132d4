rule prepare_data:
    output:
        data=layout.data,
        record=layout.record(layout.data),
    log:
        log_of("prepare-data"),
    localrule: True  # on a cluster: where the network is
    params:
        settings=canonical(experiment.data_settings()),
        code=steps.data_code(experiment.dataset.name),
    shell:
        "robust-distillation prepare-data {experiment.arguments} > {log} 2>&1"


rule prepare_target:
    output:
        data=layout.target_data("{target}"),
        record=layout.record(layout.target_data("{target}")),
    log:
        log_of("prepare-target", "{target}"),
    localrule: True  # on a cluster: where the network is
    params:
        settings=lambda w: canonical(experiment.data_settings(w.target)),
        code=lambda w: steps.data_code(experiment.file.transfer[w.target].dataset.name),
    shell:
        "robust-distillation prepare-data --target {wildcards.target} {experiment.arguments} > {log} 2>&1"
