"""The report: tables and figures, functions of the cells' JSONs alone."""

FIGURES = f"{RESULTS}/figures"


rule write_tables:
    input:
        plan.cell_results(),
    output:
        f"{RESULTS}/tables/{MANIFEST}",
    log:
        f"{RESULTS}/logs/report/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/tables.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        settings=plan.table_settings,
        out=subpath(output[0], parent=True),
    message:
        "write the tables"
    shell:
        "python -m study.tables.writing --settings {params.settings:q} --out {params.out:q} {input:q} > {log:q} 2>&1"


rule write_metrics:
    input:
        plan.cell_results(),
    output:
        metrics=f"{RESULTS}/metrics.json",
        accuracy=f"{RESULTS}/plots/accuracy.csv",
        perplexity=f"{RESULTS}/plots/perplexity.csv",
    log:
        f"{RESULTS}/logs/report/metrics.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/metrics.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    message:
        "write the tables' means, which version control compares"
    shell:
        "python -m study.tables.metrics --out {output.metrics:q} --accuracy {output.accuracy:q} --perplexity {output.perplexity:q}"
        " {input:q} > {log:q} 2>&1"


rule draw_accuracy:
    input:
        plan.cell_results(),
    output:
        multiext(f"{FIGURES}/accuracy", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/accuracy.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/accuracy.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "draw accuracy against ratio"
    shell:
        "python -m study.figures.accuracy --out {params.out:q} {input:q} > {log:q} 2>&1"


rule draw_methods:
    input:
        plan.cell_results(),
    output:
        multiext(f"{FIGURES}/methods", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/methods.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/methods.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "draw accuracy by method"
    shell:
        "python -m study.figures.methods --out {params.out:q} {input:q} > {log:q} 2>&1"


rule draw_perplexity:
    input:
        plan.cell_results(),
    output:
        multiext(f"{FIGURES}/perplexity", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/perplexity.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/perplexity.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "draw perplexity by method"
    shell:
        "python -m study.figures.perplexity --out {params.out:q} {input:q} > {log:q} 2>&1"


rule draw_trainable:
    input:
        plan.cell_results(),
    output:
        multiext(f"{FIGURES}/trainable", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/trainable.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/trainable.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "draw accuracy against trainable parameters"
    shell:
        "python -m study.figures.trainable --out {params.out:q} {input:q} > {log:q} 2>&1"


rule draw_memory:
    input:
        cells=plan.cell_results(),
        benchmarks=plan.benchmark_files("inference"),
    output:
        multiext(f"{FIGURES}/memory", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/memory.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/memory.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        benchmarks=repeated("--benchmark", plan.benchmark_files("inference")),
        out=subpath(output[0], parent=True),
    message:
        "draw memory and accuracy against ratio"
    shell:
        "python -m study.figures.memory --out {params.out:q} {params.benchmarks} {input.cells:q} > {log:q} 2>&1"


rule draw_speedup:
    input:
        plan.benchmark_files("inference"),
    output:
        multiext(f"{FIGURES}/speedup", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/speedup.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/speedup.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        benchmarks=repeated("--benchmark", plan.benchmark_files("inference")),
        out=subpath(output[0], parent=True),
    message:
        "draw speed-up against batch size"
    shell:
        "python -m study.figures.speedup --out {params.out:q} {params.benchmarks} > {log:q} 2>&1"


rule draw_gate:
    output:
        multiext(f"{FIGURES}/gate", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/gate.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/gate.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "draw the gate"
    shell:
        "python -m study.figures.gate --out {params.out:q} > {log:q} 2>&1"


rule draw_health:
    input:
        f"{CELL}/adapter/{MANIFEST}",
    output:
        multiext(f"{FIGURES}/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}/health", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        tuning=plan.tuning_record,
        out=subpath(output[0], parent=True),
        title="{model}, {row}, ratio {ratio}, seed {seed}",
    message:
        "draw the health of {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "python -m study.figures.health --tuning {params.tuning:q} --out {params.out:q} --title {params.title:q} > {log:q} 2>&1"


rule tables:
    input:
        f"{RESULTS}/tables/{MANIFEST}",
        rules.write_metrics.output,


rule figures:
    input:
        plan.figure_files(),
