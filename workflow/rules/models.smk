"""Base models: pretrained here, copied from a folder, read from a GGUF file, or fetched from the hub.

All end as models/<model>/ with a manifest.
"""


rule pretrain:
    input:
        corpus=plan.data.corpus_files(),
    output:
        plan.bases.base,
    log:
        f"{RESULTS}/logs/pretrain/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretrain/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(plan.models.come_from("pretrain")),
    threads: plan.models.pretrain_threads
    resources:
        gpu=plan.gpu("pretrain"),
        mem_mb=plan.memory("pretrain"),
        runtime=plan.time("pretrain"),
    params:
        out=subpath(output[0], parent=True),
        run=plan.models.run_folder,
        settings=plan.models.pretrain_settings,
        datasets=plan.data.corpus_datasets,
    message:
        "pretrain the base model {wildcards.model}"
    shell:
        "pat pretrain --corpus {input.corpus:q} --settings {params.settings:q} --run-dir {params.run:q} --out {params.out:q} {params.datasets} --log {log:q}{PLUGINS}"


rule copy_model:
    input:
        plan.models.files,
    output:
        plan.bases.base,
    log:
        f"{RESULTS}/logs/models/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/models/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(plan.models.come_from("path")),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
        path=plan.models.path,
    message:
        "copy the base model {wildcards.model}"
    shell:
        "pat import-model --path {params.path:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule read_gguf:
    input:
        plan.models.gguf_files,
    output:
        plan.bases.base,
    log:
        f"{RESULTS}/logs/models/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/models/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(plan.models.come_from("gguf")),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
        file=plan.models.gguf_file,
        dtype=plan.models.gguf_dtype,
    message:
        "read the base model {wildcards.model} from its GGUF file"
    shell:
        "pat import-model --gguf {params.file:q} --dtype {params.dtype:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule copy_checkpoint:
    input:
        plan.models.checkpoint_files,
    output:
        f"{CELL}/merged/{MANIFEST}",
    log:
        f"{RESULTS}/logs/checkpoints/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/checkpoints/{{model}}/{{row}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        row=one_of(plan.cells.given_rows(made_elsewhere=True)),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        out=subpath(output[0], parent=True),
        path=plan.models.checkpoint_path,
    message:
        "copy the checkpoint of {wildcards.row}"
    shell:
        "pat import-model --path {params.path:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule fetch_model:
    output:
        plan.bases.base,
    log:
        f"{RESULTS}/logs/models/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/models/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(plan.models.come_from("hub")),
    resources:
        gpu=plan.gpu("prepare"),
        mem_mb=plan.memory("prepare"),
        runtime=plan.time("prepare"),
    params:
        online=plan.online,
        out=subpath(output[0], parent=True),
        id=plan.models.hub_id,
        revision=plan.models.hub_revision,
    message:
        "fetch the base model {wildcards.model}"
    shell:
        "{params.online} pat import-model --hub {params.id:q} --revision {params.revision:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule rotate:
    input:
        base=plan.bases.base,
        text=plan.data.calibration_file(),
    output:
        f"{plan.bases.rotated}/{MANIFEST}",
    log:
        f"{RESULTS}/logs/rotate/{{model}}/{{basis}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/rotate/{{model}}/{{basis}}/seed{{seed}}.tsv"
    wildcard_constraints:
        basis="(pca|gradient)(-untied)?",
    threads: plan.bases.rotating_threads
    resources:
        gpu=plan.gpu("prune"),
        mem_mb=plan.memory("prune"),
        runtime=plan.time("prune"),
    params:
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        basis=plan.bases.basis,
        tie=plan.bases.tie,
        device=plan.bases.rotating_device,
        threads=plan.bases.rotating_threads,
    message:
        "put {wildcards.model} into the {wildcards.basis} basis, seed {wildcards.seed}"
    shell:
        "pat rotate --base {params.base:q} --basis {params.basis:q} {params.tie} --calibration {input.text:q} --device {params.device:q}"
        " --threads {params.threads:q} --seed {wildcards.seed:q} --out {params.out:q} --log {log:q}{PLUGINS}"


rule refit_readers:
    input:
        base=plan.bases.refitting_base,
        text=plan.data.calibration_file(),
        data=plan.tunings.mask_data,
        second=plan.data.second_text(),
    output:
        f"{plan.bases.refitted}/{MANIFEST}",
    log:
        f"{RESULTS}/logs/refit/{{model}}/{{basis}}/{{mask}}/align-{{align}}/{{ratio}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/refit/{{model}}/{{basis}}/{{mask}}/align-{{align}}/{{ratio}}/seed{{seed}}.tsv"
    wildcard_constraints:
        basis="native|(pca|gradient)(-untied)?",
        mask="[a-z]+",
        align="auto|[0-9]+",
    threads: plan.bases.refitting_threads
    resources:
        gpu=plan.gpu("prune"),
        mem_mb=plan.memory("prune"),
        runtime=plan.time("prune"),
    params:
        **plan.bases.named_ridges(),
        base=subpath(input.base, parent=True),
        out=subpath(output[0], parent=True),
        data=plan.tunings.mask_data_option,
        second=plan.data.second_text_option,
        ratio=plan.bases.refitting_ratio,
        ridges=plan.bases.ridges_option,
        device=plan.bases.refitting_device,
        threads=plan.bases.refitting_threads,
    message:
        "refit the readers of {wildcards.model}, {wildcards.basis} basis, mask {wildcards.mask}, ratio {wildcards.ratio}, seed {wildcards.seed}"
    shell:
        "pat refit-readers --base {params.base:q} --mask {wildcards.mask:q} --ratio {params.ratio:q} --align {wildcards.align:q}"
        " --calibration {input.text:q} {params.data} {params.second} {params.ridges} --device {params.device:q} --threads {params.threads:q} --seed {wildcards.seed:q}"
        " --out {params.out:q} --log {log:q}{PLUGINS}"


rule fetch:
    """All that needs a network, so that a login node can do it before the compute nodes start."""
    input:
        plan.fetched_files(),
