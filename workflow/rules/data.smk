rule prepare_data:
    output:
        data=layout.data,
        record=layout.record(layout.data),
    log:
        log_of("prepare-data"),
    params:
        settings=canonical(experiment.data_settings()),
        code=steps.data_code(experiment),
    shell:
        "robust-distillation prepare-data {experiment.arguments} > {log} 2>&1"
