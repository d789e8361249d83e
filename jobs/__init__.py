"""JOBS: what can be run, one line a job. The child process takes its job from this closed list, by name."""

from __future__ import annotations

from jobs import (
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
        compress.JOB,
        board.JOB,
        adaptation.JOB,
        label_study.JOB,
        fetch.JOB,
        maintain.JOB,
        ingest.JOB,
        deliver.JOB,
        score.JOB,
        alerts.JOB,
    )
}
