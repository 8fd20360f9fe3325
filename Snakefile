"""The door: reads and checks the experiment, includes the phases, names the targets.

snakemake --cores all                                        the embedded demo
snakemake --cores all --configfile config/<experiment>.yaml  another experiment
snakemake --cores all --configfile config/<experiment>.yaml --config 'only={rows: [pat], seeds: [0]}'  some cells of it
snakemake --cores all data | checkpoints | evaluation | tables | benchmarks | fetch    one phase and what it needs
"""

from snakemake.utils import min_version

min_version("9.10")


report: "workflow/report/experiment.rst"


if not config:

    configfile: f"{workflow.basedir}/config/demo.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/encode.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


onerror:
    tell_what_helps(log)


rule all:
    default_target: True
    input:
        rules.checkpoints.input,
        rules.evaluation.input,
        # Of a part of the grid nothing is laid out: these are functions of the whole.
        [] if plan.experiment.only else [rules.tables.input, rules.benchmarks.input, rules.figures.input],


localrules:
    all,
    data,
    fetch,
    checkpoints,
    evaluation,
    tables,
    benchmarks,
    figures,
