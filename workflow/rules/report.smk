"""The report: tables and figures, functions of the cells' JSONs, and of what lies in the same results behind them. `snakemake --report FILE.html` shows them, once they are there."""

from study.report.shown import shown_tables

FIGURES = f"{RESULTS}/figures"
HEALTH = f"{FIGURES}/health/{{model}}/{{row}}/{{ratio}}/seed{{seed}}/health"


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
        report(
            f"{FIGURES}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "as": "picture"},
        ),
        f"{FIGURES}/{{figure}}.pdf",
        report(
            f"{FIGURES}/{{figure}}.csv",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "as": "points, in CSV"},
        ),
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
        figure=plan.figures.named,
        reads=plan.figures.options,
        out=subpath(output[0], parent=True),
    message:
        "draw the figure {wildcards.figure}"
    shell:
        "python -m study figure {params.figure} --out {params.out:q} {params.reads} > {log:q} 2>&1"


use rule draw as draw_health with:
    input:
        f"{CELL}/adapter/{MANIFEST}",
    output:
        report(
            f"{HEALTH}.png",
            caption="../report/health.rst",
            category="Health",
            labels={"what": "course of a tuning", "model": "{model}", "row": "{row}", "ratio": "{ratio}", "seed": "{seed}"},
        ),
        f"{HEALTH}.pdf",
        f"{HEALTH}.csv",
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


# Which tables there are, only their own job knows, whose output is their manifest. So what the report shows of them is looked up when it
# is written, and at no other time: a table that a changed experiment has no more would be missed as an input.
SHOWN = shown_tables(Path(RESULTS)) if any(word.startswith("--report") for word in sys.argv) else []


rule tables:
    input:
        f"{RESULTS}/tables/{MANIFEST}",
        rules.write_metrics.output,
        [report(it.path, caption=it.caption, category=it.category, labels=it.labels) for it in SHOWN],


rule figures:
    input:
        plan.figures.files(),
