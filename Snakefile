"""From data to the comparison table. Choose another experiment by
`snakemake --config experiment=experiments/NAME.yaml`, and put other values in place by `overlay=FILE`."""

import gc

gc.set_threshold(50_000)  # of thousands of jobs none goes: to look for garbage took a seventh of the time to plan them


include: "workflow/rules/common.smk"
include: "workflow/rules/steps.smk"


rule all:
    default_target: True
    input:
        Index(experiment).inputs,
        Index(experiment).outputs,
