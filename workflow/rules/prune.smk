"""Pruning without training the mask: the base before tuning (P→FT), or the tuned and merged model (FT→P)."""


rule prune_base:
    input:
        base=plan.base,
    output:
        f"{CELL}/pruned/{MANIFEST}",
    log:
        f"{RESULTS}/logs/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.rows_of("prune-tune")),
    resources:
        gpu=plan.gpu("prune"),
        mem_mb=plan.memory("prune"),
        runtime=plan.time("prune"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        pruner=plan.pruner,
        align=plan.align,
    message:
        "prune {wildcards.model} by {wildcards.row}, ratio {wildcards.ratio}"
    shell:
        "pat prune --base {params.base} --pruner {params.pruner} --ratio {wildcards.ratio} --align {params.align}"
        " --out {params.out} --log {log}"


rule prune_tuned:
    input:
        base=f"{plan.tuned_cell}/merged/{MANIFEST}",
    output:
        f"{CELL}/merged/{MANIFEST}",
    log:
        f"{RESULTS}/logs/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.rows_of("tune-prune")),
    resources:
        gpu=plan.gpu("prune"),
        mem_mb=plan.memory("prune"),
        runtime=plan.time("prune"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        pruner=plan.pruner,
        align=plan.align,
    message:
        "prune the tuned {wildcards.model} by {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "pat prune --base {params.base} --pruner {params.pruner} --ratio {wildcards.ratio} --align {params.align}"
        " --out {params.out} --log {log}"
