"""Benchmarks: time and memory of model shapes with random weights, which need neither data nor a trained model."""


rule benchmark_inference:
    output:
        f"{RESULTS}/benchmark/inference/{{shape}}.json",
    log:
        f"{RESULTS}/logs/benchmark/inference/{{shape}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmark/inference/{{shape}}.tsv"
    threads: plan.benchmarks.threads("inference")
    resources:
        gpu=plan.gpu("benchmark"),
        mem_mb=plan.memory("benchmark"),
        runtime=plan.time("benchmark"),
    params:
        shape=plan.benchmarks.shape,
        settings=plan.benchmarks.settings("inference"),
    message:
        "measure inference of {wildcards.shape}"
    shell:
        "pat benchmark inference --shape {params.shape:q} --settings {params.settings:q} --out {output:q} --log {log:q}{PLUGINS}"


rule benchmark_tuning:
    output:
        f"{RESULTS}/benchmark/tuning/{{shape}}.json",
    log:
        f"{RESULTS}/logs/benchmark/tuning/{{shape}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmark/tuning/{{shape}}.tsv"
    threads: plan.benchmarks.threads("tuning")
    resources:
        gpu=plan.gpu("benchmark"),
        mem_mb=plan.memory("benchmark"),
        runtime=plan.time("benchmark"),
    params:
        shape=plan.benchmarks.shape,
        settings=plan.benchmarks.settings("tuning"),
    message:
        "measure tuning of {wildcards.shape}"
    shell:
        "pat benchmark tune --shape {params.shape:q} --settings {params.settings:q} --out {output:q} --log {log:q}{PLUGINS}"


rule benchmarks:
    input:
        plan.benchmarks.files(),
