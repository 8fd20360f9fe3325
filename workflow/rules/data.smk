"""Data: the embedded world, and local or hub sources brought into three forms of JSONL."""


rule world:
    output:
        plan.data.world_files(),
    log:
        f"{RESULTS}/logs/world.log",
    benchmark:
        f"{RESULTS}/benchmarks/world.tsv"
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        settings=as_json(plan.experiment.data.world),
        out=plan.data.world_folder,
    message:
        "write the embedded world's data"
    shell:
        "python -m study world --settings {params.settings:q} --out {params.out:q} > {log:q} 2>&1"


rule instruct:
    input:
        plan.data.source_files("instruct"),
    output:
        f"{DATA}/instruct.jsonl",
    log:
        f"{RESULTS}/logs/data/instruct.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/instruct.tsv"
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        online=plan.online,
        source=plan.data.source("instruct"),
    message:
        "prepare the instruction set"
    shell:
        "{params.online} python -m study prepare-instruct --source {params.source:q} --out {output:q} > {log:q} 2>&1"


rule task:
    input:
        plan.data.source_files("tasks"),
    output:
        f"{DATA}/tasks/{{name}}.jsonl",
    log:
        f"{RESULTS}/logs/data/tasks/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/tasks/{{name}}.tsv"
    wildcard_constraints:
        name=one_of(plan.experiment.data.tasks),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        online=plan.online,
        source=plan.data.source("tasks"),
    message:
        "prepare the task {wildcards.name}"
    shell:
        "{params.online} python -m study prepare-task --task {wildcards.name:q} --source {params.source:q} --out {output:q} > {log:q} 2>&1"


rule text:
    input:
        plan.data.source_files("text"),
    output:
        f"{DATA}/text/{{name}}.jsonl",
    log:
        f"{RESULTS}/logs/data/text/{{name}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/text/{{name}}.tsv"
    wildcard_constraints:
        name=one_of([*plan.experiment.data.text, "pretrain"]),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        online=plan.online,
        source=plan.data.source("text"),
    message:
        "prepare the text {wildcards.name}"
    shell:
        "{params.online} python -m study prepare-text --source {params.source:q} --out {output:q} > {log:q} 2>&1"


rule mix_calibration:
    input:
        plan.data.mixed_from(),
    output:
        f"{DATA}/calibration.jsonl",
    log:
        f"{RESULTS}/logs/data/calibration.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/calibration.tsv"
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        parts=repeated("--part", plan.data.mixing_options(None)),
    message:
        "mix the calibration text"
    shell:
        "python -m study mix {params.parts} --out {output:q} > {log:q} 2>&1"


rule fetch_tasks:
    output:
        f"{DATA}/harness.json",
    log:
        f"{RESULTS}/logs/data/harness.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/harness.tsv"
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        online=plan.online,
        tasks=repeated("--task", plan.data.harness_tasks()),
    message:
        "fetch the data of lm-eval's own tasks"
    shell:
        "{params.online} pat fetch-tasks {params.tasks} --out {output:q} --log {log:q}{PLUGINS}"


rule data:
    input:
        plan.data.files(),
        plan.data.mixed_files(),
        plan.data.harness_file(),  # a version of the data would change under its lock where the evaluation first wrote it
