"""Evaluation: every merged model on every task and text, then one JSON a cell with all that the tables read."""


rule evaluate:
    input:
        model=plan.cells.finished,
        tasks=plan.data.files("tasks/"),
        texts=plan.data.text_files(),
        harness=plan.data.harness_file(),
    output:
        result=f"{SCORES}/evaluation.json",
        samples=f"{SCORES}/evaluation_samples.jsonl",
    log:
        f"{RESULTS}/logs/evaluate/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    priority: 4
    threads: plan.cells.evaluation_threads
    resources:
        gpu=plan.gpu("evaluate"),
        mem_mb=plan.memory("evaluate"),
        runtime=plan.time("evaluate"),
    params:
        model=subpath(input.model, parent=True),
        tasks=repeated("--task", plan.data.files("tasks/")),
        texts=repeated("--text", plan.data.text_files()),
        settings=plan.cells.evaluation_settings,
    message:
        "evaluate {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "pat evaluate --model {params.model:q} {params.tasks} {params.texts} --settings {params.settings:q}"
        " --seed {wildcards.seed:q} --out {output.result:q} --log {log:q}{PLUGINS}"


rule count_given:
    input:
        base=plan.bases.base,
        model=plan.cells.finished,
    output:
        f"{SCORES}/sizes.json",
    log:
        f"{RESULTS}/logs/sizes/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sizes/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.given_rows()),
    priority: 4
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        base=subpath(input.base, parent=True),
        model=subpath(input.model, parent=True),
    message:
        "count {wildcards.model}, {wildcards.row}"
    shell:
        "pat sizes --base {params.base:q} --model {params.model:q} --ratio {wildcards.ratio:q} --out {output:q} --log {log:q}{PLUGINS}"


rule collect_cell:
    input:
        model=plan.cells.finished,
        sizes=plan.cells.sizes,
        evaluation=f"{SCORES}/evaluation.json",
        samples=f"{SCORES}/evaluation_samples.jsonl",
    output:
        f"{SCORES}/cell.json",
    log:
        f"{RESULTS}/logs/collect/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    priority: 5
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        cell=plan.cells.identity,
        tuning=plan.cells.tuning_record,
        before=plan.cells.earlier_tuning,
        steps=plan.cells.step_records,
    message:
        "collect {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "python -m study collect --cell {params.cell:q} --tuning={params.tuning:q} {params.before} {params.steps}"
        " --evaluation {input.evaluation:q} --samples {input.samples:q} --out {output:q} > {log:q} 2>&1"


rule evaluation:
    input:
        plan.cells.chosen_results(),
