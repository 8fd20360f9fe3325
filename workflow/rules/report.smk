"""The report: tables and figures, functions of the cells' JSONs alone."""

FIGURES = f"{RESULTS}/figures"


rule write_tables:
    input:
        plan.cells.results(),
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
        "python -m study tables --settings {params.settings:q} --out {params.out:q} {input:q} > {log:q} 2>&1"


rule write_metrics:
    input:
        plan.cells.results(),
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
        "python -m study metrics --out {output.metrics:q} --accuracy {output.accuracy:q} --perplexity {output.perplexity:q}"
        " {input:q} > {log:q} 2>&1"


rule draw:
    input:
        unpack(plan.figures.inputs),
    output:
        multiext(f"{FIGURES}/{{figure}}", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/{{figure}}.tsv"
    wildcard_constraints:
        figure=one_of(plan.figures.names()),
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        figure="{figure}",
        reads=plan.figures.options,
        out=subpath(output[0], parent=True),
    message:
        "draw the figure {wildcards.figure}"
    shell:
        "python -m study figure {params.figure:q} --out {params.out:q} {params.reads} > {log:q} 2>&1"


use rule draw as draw_health with:
    input:
        f"{CELL}/adapter/{MANIFEST}",
    output:
        multiext(f"{FIGURES}/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}/health", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/report/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        figure="health",
    params:
        figure="health",
        reads=plan.figures.health_options,
        out=subpath(output[0], parent=True),
    message:
        "draw the health of {wildcards.model}, {wildcards.row}, ratio {wildcards.ratio}, seed {wildcards.seed}"


rule tables:
    input:
        f"{RESULTS}/tables/{MANIFEST}",
        rules.write_metrics.output,


rule figures:
    input:
        plan.figures.files(),
