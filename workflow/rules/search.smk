"""Learning rates, where the experiment searches them: every arm (method × ratio) tries the same number, on its first seed.

A row that tunes before its pruning and after it is one arm for all its ratios.
"""


rule search_rate:
    input:
        base=plan.tunings.on_first_seed(plan.tunings.base),
        data=plan.data.instruct_file(),
        teacher=plan.tunings.on_first_seed(plan.tunings.teacher),
        encoded=plan.encodings.for_search,
    output:
        f"{plan.paths.arm}/rate.json",
    log:
        f"{RESULTS}/logs/search/{{model}}/{{row}}/{{ratio}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/search/{{model}}/{{row}}/{{ratio}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.tuned_rows()),
        ratio=one_of(plan.cells.levels(tuned=True)),
    priority: 1
    threads: plan.tunings.threads
    resources:
        gpu=plan.allowances.one_gpu,
        mem_mb=plan.memory("tune"),
        runtime=plan.allowances.search_time,
    params:
        base=subpath(input.base, parent=True),
        run=plan.tunings.search_folder,
        tuner=plan.tunings.tuner,
        ratio=plan.tunings.ratio,
        seed=plan.tunings.first_seed,
        settings=plan.tunings.whole_settings,
        teacher=plan.tunings.teacher_option,
        encoded=plan.encodings.option,
    message:
        "search the learning rate of {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}"
    shell:
        "pat search-rate --base {params.base:q} --data {input.data:q} --tuner {params.tuner:q} --ratio {params.ratio:q} --seed {params.seed:q}"
        " {params.teacher} {params.encoded} --settings {params.settings:q} --run-dir {params.run:q} --out {output:q} --log {log:q}{PLUGINS}"
