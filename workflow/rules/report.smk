"""The report: tables and figures, functions of the cells' JSONs alone."""


rule write_tables:
    input:
        cells=plan.cell_files("cell.json"),
    output:
        f"{RESULTS}/tables/{MANIFEST}",
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    resources:
        gpu=0,
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
    message:
        "write the tables"
    shell:
        "python {SCRIPTS}/tables.py --out {params.out} {input.cells} > {log} 2>&1"


rule tables:
    input:
        f"{RESULTS}/tables/{MANIFEST}",


rule figures:
    input:
        [],
