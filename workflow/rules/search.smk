"""Learning rates, where the experiment searches them: every arm (method × ratio) tries the same number, on its first seed."""


rule search_rate:
    input:
        base=plan.on_first_seed(plan.tuning_base),
        data=plan.data.instruct_file(),
        teacher=plan.on_first_seed(plan.teacher),
    output:
        f"{plan.arm}/rate.json",
    log:
        f"{RESULTS}/logs/search/{{model}}/{{row}}/{{ratio}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/search/{{model}}/{{row}}/{{ratio}}.tsv"
    wildcard_constraints:
        row=one_of(plan.rows_of("tune", "prune-tune")),
    threads: plan.tune_threads
    resources:
        gpu=plan.one_gpu,
        mem_mb=plan.memory("tune"),
        runtime=plan.search_time,
    params:
        base=subpath(input.base, parent=True),
        run=plan.search_folder,
        tuner=plan.tuner,
        ratio=plan.tuning_ratio,
        seed=plan.first_seed,
        settings=plan.tune_settings,
        teacher=plan.teacher_option,
    message:
        "search the learning rate of {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}"
    shell:
        "pat search-rate --base {params.base:q} --data {input.data:q} --tuner {params.tuner:q} --ratio {params.ratio:q} --seed {params.seed:q}"
        " {params.teacher} --settings {params.settings:q} --run-dir {params.run:q} --out {output:q} --log {log:q}{PLUGINS}"
