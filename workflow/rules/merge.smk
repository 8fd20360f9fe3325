"""Merging: base and adapter become a stock checkpoint. `checkpoints` is everything up to here.

What a row has tuned before its pruning stays, merged, for whoever adds a ratio: as a temp() it would be made again then, and with it every
ratio that is there already.
"""


rule merge:
    input:
        base=plan.tunings.base,
        adapter=f"{CELL}/adapter/{MANIFEST}",
    output:
        f"{CELL}/merged/{MANIFEST}",
    log:
        f"{RESULTS}/logs/merge/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/merge/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.tuned_rows()),
        ratio=one_of(plan.cells.levels(tuned=True)),
    priority: 3
    resources:
        gpu=plan.gpu("merge"),
        mem_mb=plan.memory("merge"),
        runtime=plan.time("merge"),
    params:
        base=subpath(input.base, parent=True),
        adapter=subpath(input.adapter, parent=True),
        out=subpath(output[0], parent=True),
    message:
        "merge {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "pat merge --base {params.base:q} --adapter {params.adapter:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule checkpoints:
    input:
        plan.cells.merged_models(),
