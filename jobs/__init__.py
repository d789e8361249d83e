"""JOBS: what can be run, one line a job. The child process takes its job from this closed list, by name."""

from __future__ import annotations

from jobs import (
    ablation,
    adaptation,
    alerts,
    board,
    compress,
    deliver,
    explain,
    fetch,
    finetune,
    fold_in,
    ingest,
    label_study,
    maintain,
    masked_lm,
    pretrain,
    recommend,
    reinforce,
    score,
)

JOBS = {
    job.name: job
    for job in (
        finetune.JOB,
        recommend.JOB,
        fold_in.JOB,
        reinforce.JOB,
        explain.JOB,
        masked_lm.JOB,
        pretrain.JOB,
        compress.JOB,
        board.JOB,
        adaptation.JOB,
        ablation.JOB,
        label_study.JOB,
        fetch.JOB,
        maintain.JOB,
        ingest.JOB,
        deliver.JOB,
        score.JOB,
        alerts.JOB,
    )
}
