"""Pruning without training the mask: before tuning (P→FT), the tuned and merged model (FT→P), or between two tunings (FT→P→FT).

Pruners that measure on text take the instruction set, or the corpus; the others leave it unread.
"""


rule prune_base:
    input:
        base=plan.tunings.pruned_from,
        text=plan.data.calibration_file(),
    output:
        temp(f"{CELL}/pruned/{MANIFEST}"),
    log:
        f"{RESULTS}/logs/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.rows_of("prune-tune", "tune-prune-tune")),
    threads: plan.tunings.threads
    resources:
        gpu=plan.gpu("prune"),
        mem_mb=plan.memory("prune"),
        runtime=plan.time("prune"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        pruner=plan.tunings.pruner,
        ratio=plan.tunings.asked_ratio,
        align=plan.tunings.align,
        settings=plan.tunings.prune_settings,
        device=plan.tunings.device,
        threads=plan.tunings.threads,
    message:
        "prune {wildcards.model} by {wildcards.row}, ratio {wildcards.ratio}"
    shell:
        "pat prune --base {params.base:q} --pruner {params.pruner:q} --ratio {params.ratio:q} --align {params.align:q}"
        " --settings {params.settings:q}"
        " --calibration {input.text:q} --device {params.device:q} --threads {params.threads:q} --seed {wildcards.seed:q}"
        " --out {params.out:q} --log {log:q}{PLUGINS}"


use rule prune_base as prune_tuned with:
    input:
        base=f"{plan.paths.tuned_cell}/merged/{MANIFEST}",
        text=plan.data.calibration_file(),
    output:
        f"{CELL}/merged/{MANIFEST}",
    wildcard_constraints:
        row=one_of(plan.cells.rows_of("tune-prune")),
    priority: 3
    message:
        "prune the tuned {wildcards.model} by {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
