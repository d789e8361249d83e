"""The tables, as an ordered list of migrations. A migration is never edited once released: add another below it.

Control tables (runs, schedules, models) carry no PRIMARY KEY or UNIQUE: DuckDB's write-ahead log has a history of
failing to replay key churn, and one write lock already makes the check-then-insert atomic. Timestamps are naive UTC.
"""

from __future__ import annotations

MIGRATIONS: list[tuple[str, tuple[str, ...]]] = [
    (
        "001_runs",
        (
            """CREATE TABLE runs (
                id VARCHAR NOT NULL, job VARCHAR NOT NULL, params VARCHAR NOT NULL, state VARCHAR NOT NULL,
                trigger VARCHAR NOT NULL, slot_at TIMESTAMP, attempt INTEGER NOT NULL, retry_of VARCHAR,
                requested_at TIMESTAMP NOT NULL, not_before_at TIMESTAMP, started_at TIMESTAMP, beat_at TIMESTAMP,
                finished_at TIMESTAMP, progress DOUBLE NOT NULL, message VARCHAR NOT NULL, error VARCHAR NOT NULL,
                result VARCHAR NOT NULL, pid INTEGER, pid_created_at DOUBLE, device VARCHAR NOT NULL,
                cancel_asked_at TIMESTAMP)""",
            """CREATE TABLE run_metrics (
                run_id VARCHAR NOT NULL, step INTEGER NOT NULL, name VARCHAR NOT NULL, value DOUBLE NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
            "CREATE TABLE schedules (job VARCHAR NOT NULL, cron VARCHAR NOT NULL, next_at TIMESTAMP, last_at TIMESTAMP)",
            """CREATE TABLE missed_slots (
                job VARCHAR NOT NULL, slot_at TIMESTAMP NOT NULL, reason VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "002_models",
        (
            """CREATE TABLE model_versions (
                task VARCHAR NOT NULL, version VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, base VARCHAR NOT NULL,
                recipe VARCHAR NOT NULL, dataset VARCHAR NOT NULL, metrics VARCHAR NOT NULL, verdict VARCHAR NOT NULL,
                run_id VARCHAR, created_at TIMESTAMP NOT NULL)""",
            """CREATE TABLE promotions (
                task VARCHAR NOT NULL, version VARCHAR NOT NULL, previous VARCHAR, who VARCHAR NOT NULL,
                reason VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "003_activity",
        (
            # the prediction log holds no text: a hash, a length and the answer
            """CREATE TABLE predictions (
                task VARCHAR NOT NULL, version VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, n_chars INTEGER NOT NULL,
                label VARCHAR NOT NULL, score DOUBLE NOT NULL, in_scope BOOLEAN NOT NULL, novelty DOUBLE NOT NULL,
                ms DOUBLE NOT NULL, source VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            "CREATE TABLE audit (who VARCHAR NOT NULL, what VARCHAR NOT NULL, detail VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)",
        ),
    ),
]
