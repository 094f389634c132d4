"""A rule for each step that the experiment asks for: what it reads and makes, and what it depends on, as
`robust_distillation.pipeline.steps` declares."""

from robust_distillation.digests import canonical
from robust_distillation.pipeline.steps import STEPS, Index

REPORTED = {".csv": ("table", "Tables"), ".png": ("figure", "Figures")}  # in Snakemake's own report


def of_job(kind, what):
    """A function of a rule's wildcards: what the job with these values of them says."""
    return lambda wildcards: what(kind(experiment, **wildcards))


def made(kind):
    """The patterns of a step's outputs and its record; those for people are named to Snakemake's own report."""
    step = kind.pattern(experiment)
    return [flagged(file) for file in step.outputs] + ([step.record] if step.record else [])


def flagged(file):
    if file.suffix not in REPORTED:
        return file
    caption, category = REPORTED[file.suffix]
    return report(file, caption=f"../report/{caption}.rst", category=category)


for kind in STEPS:
    if not any(True for _ in kind.jobs(experiment)):
        continue

    rule:
        name:
            kind.rule_name
        input:
            of_job(kind, lambda step: step.inputs),
        output:
            made(kind),
        log:
            kind.pattern(experiment).log,
        wildcard_constraints:
            **kind.constraints(experiment),
        priority: kind.priority
        localrule: kind.local
        threads: of_job(kind, lambda step: step.devices * experiment.compute.threads if step.computes else 1)
        params:
            settings=of_job(kind, lambda step: canonical(step.settings)),
            code=of_job(kind, lambda step: step.code),
            command=of_job(kind, lambda step: step.command),
        shell:
            "robust-distillation {params.command} {experiment.arguments} > {log} 2>&1"
