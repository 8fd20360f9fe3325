"""Tuning: one adapter per cell, on the base model, or on the pruned one where the method prunes first.

A method that prunes between two tunings has one more adapter per row and seed, where the ratio `before` stands.
"""


rule tune:
    input:
        base=plan.tunings.base,
        data=plan.data.instruct_file(),
        teacher=plan.tunings.teacher,
        rate=plan.tunings.rate,
        encoded=plan.encodings.for_tuning,
    output:
        f"{CELL}/adapter/{MANIFEST}",
    log:
        f"{RESULTS}/logs/tune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.tuned_rows()),
        ratio=one_of(plan.cells.levels(tuned=True)),
    priority: 2
    threads: plan.allowances.cores
    resources:
        gpu=plan.gpu("tune"),
        mem_mb=plan.memory("tune"),
        runtime=plan.time("tune"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        run=plan.tunings.run_folder,
        tuner=plan.tunings.tuner,
        ratio=plan.tunings.ratio,
        settings=plan.tunings.settings,
        teacher=plan.tunings.teacher_option,
        rate=plan.tunings.rate_option,
        encoded=plan.encodings.option,
        datasets=plan.data.instruct_datasets,
        launcher=plan.allowances.launcher,
    message:
        "tune {wildcards.model} by {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "{params.launcher} pat tune --base {params.base:q} --data {input.data:q} --tuner {params.tuner:q} --ratio {params.ratio:q}"
        " --seed {wildcards.seed:q} {params.teacher} {params.rate} {params.encoded} {params.datasets} --settings {params.settings:q} --run-dir {params.run:q} --out {params.out:q} --log {log:q}{PLUGINS}"
