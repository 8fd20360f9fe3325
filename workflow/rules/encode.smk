"""The instruction set in tokens, once for each model and length of rows, so that no tuning or search does it again on a GPU's time."""


rule encode:
    input:
        base=plan.bases.base,
        data=plan.data.instruct_file(),
    output:
        f"{plan.encodings.folder}/{MANIFEST}",
    log:
        f"{RESULTS}/logs/encode/{{model}}/{{max_length}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/encode/{{model}}/{{max_length}}.tsv"
    wildcard_constraints:
        max_length=one_of(plan.encodings.lengths()),
    threads: plan.encodings.THREADS
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
    message:
        "encode the instruction set for {wildcards.model}, at most {wildcards.max_length} tokens a row"
    shell:
        "pat encode --base {params.base:q} --data {input.data:q} --max-length {wildcards.max_length:q} --threads {threads:q}"
        " --out {params.out:q} --log {log:q}{PLUGINS}"
