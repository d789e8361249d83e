"""The tables, as an ordered list of migrations. A migration is never edited once released: add another below it.

Control tables (runs, schedules, models) carry no PRIMARY KEY or UNIQUE: DuckDB's write-ahead log has a history of
failing to replay key churn, and one write lock already makes the check-then-insert atomic. Timestamps are naive UTC.
"""

from __future__ import annotations

_TREND_SIDES = ((), ("topic",), ("source",), ("topic", "source"))
TREND_ROLLUPS = (*(("day", sides) for sides in (*_TREND_SIDES, ("tickers",))), *(("hour", sides) for sides in _TREND_SIDES))
"""The kept-up sums: (grain, sides). Tickers with another side, or by the hour, would be nearly as many rows as there are articles: those
are summed from trend_clustered."""
_TREND_SUMS = """n_articles INTEGER NOT NULL, n_negative INTEGER NOT NULL, n_neutral INTEGER NOT NULL, n_positive INTEGER NOT NULL,
                sum_negative BIGINT NOT NULL, sum_neutral BIGINT NOT NULL, sum_positive BIGINT NOT NULL,
                sq_negative BIGINT NOT NULL, sq_neutral BIGINT NOT NULL, sq_positive BIGINT NOT NULL"""

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
    (
        "004_news",
        (
            # what was said of a source last is what holds: on, paused or removed; settings is JSON, without secrets
            """CREATE TABLE sources (
                name VARCHAR NOT NULL, kind VARCHAR NOT NULL, settings VARCHAR NOT NULL, licence VARCHAR NOT NULL,
                state VARCHAR NOT NULL, changed_at TIMESTAMP NOT NULL)""",
            # one row a look at a source; refusals is JSON {reason: n}, memory is JSON (etag, last_modified, position)
            """CREATE TABLE source_checks (
                source VARCHAR NOT NULL, checked_at TIMESTAMP NOT NULL, ok BOOLEAN NOT NULL, n_seen INTEGER NOT NULL,
                n_new INTEGER NOT NULL, n_known INTEGER NOT NULL, n_refused INTEGER NOT NULL, refusals VARCHAR NOT NULL,
                newest_at TIMESTAMP, next_at TIMESTAMP, error VARCHAR NOT NULL, memory VARCHAR NOT NULL)""",
            """CREATE TABLE documents (
                id VARCHAR NOT NULL, source VARCHAR NOT NULL, url VARCHAR NOT NULL, title VARCHAR NOT NULL, body VARCHAR NOT NULL,
                language VARCHAR NOT NULL, tickers VARCHAR[] NOT NULL, published_at TIMESTAMP NOT NULL, seen_at TIMESTAMP NOT NULL,
                truncated BOOLEAN NOT NULL, synthetic BOOLEAN NOT NULL)""",
            "CREATE TABLE prices (ticker VARCHAR NOT NULL, priced_at TIMESTAMP NOT NULL, close DOUBLE NOT NULL, source VARCHAR NOT NULL)",
        ),
    ),
    (
        "005_articles",
        (
            # a scored document as the trends count it. net = round(10 000 * (P(positive) - P(negative))): whole numbers add up
            # exactly, in any order. leads: the first article of its story, the one that counts for sentiment.
            """CREATE TABLE articles (
                document_id VARCHAR NOT NULL, published_at TIMESTAMP NOT NULL, source VARCHAR NOT NULL, tickers VARCHAR[] NOT NULL,
                topic VARCHAR NOT NULL, topic_score FLOAT NOT NULL, story_id VARCHAR NOT NULL, leads BOOLEAN NOT NULL,
                sentiment VARCHAR NOT NULL, net INTEGER NOT NULL, p_negative FLOAT NOT NULL, p_neutral FLOAT NOT NULL,
                p_positive FLOAT NOT NULL, lexicon FLOAT NOT NULL, sentiment_version VARCHAR NOT NULL, topic_version VARCHAR NOT NULL,
                scored_at TIMESTAMP NOT NULL, signature BLOB NOT NULL)""",
        ),
    ),
    (
        "006_trend",
        (
            # what the trends count by, as numbers: kind is topic, source or tickers (a set of tickers, joined by commas)
            "CREATE TABLE trend_names (kind VARCHAR NOT NULL, id INTEGER NOT NULL, name VARCHAR NOT NULL)",
            "CREATE TABLE trend_tickers (tickers INTEGER NOT NULL, ticker VARCHAR NOT NULL)",
            # signed entries: an article that comes is +1, a story whose lead passes to another article -1 and +1. bucket counts
            # 5 minutes since 1970; class 0, 1, 2: negative, neutral, positive; a batch is one transaction
            """CREATE TABLE trend_facts (
                batch INTEGER NOT NULL, bucket INTEGER NOT NULL, topic INTEGER NOT NULL, source INTEGER NOT NULL,
                tickers INTEGER NOT NULL, class TINYINT NOT NULL, net SMALLINT NOT NULL, n_articles TINYINT NOT NULL,
                n_stories TINYINT NOT NULL)""",
            # the last row says up to which batch the entries are in the sums below
            "CREATE TABLE trend_folds (batch INTEGER NOT NULL, folded_at TIMESTAMP NOT NULL)",
            *(f"CREATE TABLE trend_{grain}_{'_'.join(sides) or 'all'} (bucket INTEGER NOT NULL, "
              + "".join(f"{side} INTEGER NOT NULL, " for side in sides) + f"{_TREND_SUMS})" for grain, sides in TREND_ROLLUPS),
            # one row a story, with what a list shows of its leading article: looking fifty of them up in articles and documents would
            # read both
            """CREATE TABLE stories (
                story_id VARCHAR NOT NULL, published_at TIMESTAMP NOT NULL, topic INTEGER NOT NULL, source INTEGER NOT NULL,
                tickers INTEGER NOT NULL, class TINYINT NOT NULL, net SMALLINT NOT NULL, n_articles INTEGER NOT NULL,
                p_negative FLOAT NOT NULL, p_neutral FLOAT NOT NULL, p_positive FLOAT NOT NULL, lexicon FLOAT NOT NULL,
                url VARCHAR NOT NULL, title VARCHAR NOT NULL, synthetic BOOLEAN NOT NULL)""",
            # every document seen before this moment was scored
            "CREATE TABLE score_marks (scored_to TIMESTAMP NOT NULL, noted_at TIMESTAMP NOT NULL)",
        ),
    ),
    (
        "007_alerts",
        (
            # n counts up under the write lock: which row of a rule, a silence or an incident is the last does not hang on a clock
            """CREATE TABLE alert_rules (
                n INTEGER NOT NULL, id VARCHAR NOT NULL, title VARCHAR NOT NULL, dimension VARCHAR NOT NULL, keys VARCHAR[] NOT NULL,
                kinds VARCHAR[] NOT NULL, severity VARCHAR NOT NULL, bucket_s INTEGER NOT NULL, sensitivity DOUBLE NOT NULL,
                floor INTEGER NOT NULL, for_buckets INTEGER NOT NULL, keep_firing_buckets INTEGER NOT NULL, enabled BOOLEAN NOT NULL,
                who VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # how far a rule has been evaluated, what it holds open (JSON), and how often it failed in a row: one row a rule
            """CREATE TABLE alert_marks (
                rule_id VARCHAR NOT NULL, done_until TIMESTAMP, live VARCHAR NOT NULL, n_errors INTEGER NOT NULL, error VARCHAR NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
            # every transition; the last row of an alert is how it stands. sent: an outbox row was written with it
            """CREATE TABLE alert_events (
                n BIGINT NOT NULL, alert_id VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL, rule_id VARCHAR NOT NULL,
                dimension VARCHAR NOT NULL, key VARCHAR NOT NULL, kind VARCHAR NOT NULL, severity VARCHAR NOT NULL,
                transition VARCHAR NOT NULL, starts_at TIMESTAMP NOT NULL, bucket_end_at TIMESTAMP NOT NULL, ends_at TIMESTAMP,
                value DOUBLE NOT NULL, expected DOUBLE NOT NULL, score DOUBLE NOT NULL, window_s INTEGER NOT NULL,
                reason VARCHAR NOT NULL, why VARCHAR NOT NULL, lead_id VARCHAR NOT NULL, sent BOOLEAN NOT NULL,
                muted VARCHAR NOT NULL, silenced_by VARCHAR NOT NULL, inhibited_by VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # the buckets in which an alert's key was out of the ordinary: the points that are marked on a chart
            """CREATE TABLE alert_points (
                alert_id VARCHAR NOT NULL, bucket_at TIMESTAMP NOT NULL, value DOUBLE NOT NULL, expected DOUBLE NOT NULL,
                score DOUBLE NOT NULL)""",
            "CREATE TABLE alert_acks (alert_id VARCHAR NOT NULL, who VARCHAR NOT NULL, note VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)",
            """CREATE TABLE silences (
                n INTEGER NOT NULL, id VARCHAR NOT NULL, rule_id VARCHAR NOT NULL, dimension VARCHAR NOT NULL, key VARCHAR NOT NULL,
                starts_at TIMESTAMP NOT NULL, ends_at TIMESTAMP NOT NULL, who VARCHAR NOT NULL, reason VARCHAR NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
            # what a person says of the past: the labels that a backtest is measured on
            """CREATE TABLE incidents (
                n INTEGER NOT NULL, id VARCHAR NOT NULL, title VARCHAR NOT NULL, kind VARCHAR NOT NULL, starts_at TIMESTAMP NOT NULL,
                ends_at TIMESTAMP NOT NULL, topic VARCHAR NOT NULL, tickers VARCHAR[] NOT NULL, note VARCHAR NOT NULL,
                removed BOOLEAN NOT NULL, who VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "008_outbox",
        (
            # the latest version of a name holds; address is redacted, the credentials lie in a file beside the database
            """CREATE TABLE channels (
                name VARCHAR NOT NULL, version INTEGER NOT NULL, kind VARCHAR NOT NULL, address VARCHAR NOT NULL,
                secret_id VARCHAR NOT NULL, mode VARCHAR NOT NULL, min_severity VARCHAR NOT NULL, per_minute INTEGER NOT NULL,
                digest_s INTEGER NOT NULL, state VARCHAR NOT NULL, who VARCHAR NOT NULL, changed_at TIMESTAMP NOT NULL)""",
            # n is the order of arrival; what became of a row is in deliveries, under the message that carries it
            """CREATE TABLE outbox (
                n BIGINT NOT NULL, id VARCHAR NOT NULL, channel VARCHAR NOT NULL, alert_id VARCHAR NOT NULL, transition VARCHAR NOT NULL,
                severity VARCHAR NOT NULL, title VARCHAR NOT NULL, event VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL)""",
            # rows of the outbox that travel together, fixed before the first try; a row without one is its own message
            """CREATE TABLE bundles (
                message_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, notification_id VARCHAR NOT NULL, made_at TIMESTAMP NOT NULL)""",
            # one row a try, or a person's word; outcome: sent, dry, retry, dead or again
            """CREATE TABLE deliveries (
                message_id VARCHAR NOT NULL, step INTEGER NOT NULL, channel VARCHAR NOT NULL, outcome VARCHAR NOT NULL,
                n_alerts INTEGER NOT NULL, error VARCHAR NOT NULL, latency_ms DOUBLE, next_at TIMESTAMP, who VARCHAR NOT NULL,
                tried_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "009_watchlists",
        (
            # the last row holds; no tickers means all of them
            "CREATE TABLE watchlists (n INTEGER NOT NULL, tickers VARCHAR[] NOT NULL, who VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)",
        ),
    ),
    (
        "010_trend_by_ticker",
        (
            # the entries that have tickers once more, one row a ticker, in pieces (of rollup.CLUSTER_AT entries) sorted by ticker: what is
            # asked of one company lies together. ticker is the id of the set of that ticker alone
            """CREATE TABLE trend_clustered (
                ticker INTEGER NOT NULL, bucket INTEGER NOT NULL, topic INTEGER NOT NULL, source INTEGER NOT NULL,
                tickers INTEGER NOT NULL, class TINYINT NOT NULL, net SMALLINT NOT NULL, n_articles TINYINT NOT NULL,
                n_stories TINYINT NOT NULL)""",
            # the last row says up to which batch the entries are in it
            "CREATE TABLE trend_clusters (batch INTEGER NOT NULL, clustered_at TIMESTAMP NOT NULL)",
        ),
    ),
    (
        "011_explanations",
        (
            # what was computed for a text, as numbers and places only: the text itself is never here, its digest finds the row again.
            # part: prediction, explanation, trust or flips
            """CREATE TABLE explanations (
                digest VARCHAR NOT NULL, task VARCHAR NOT NULL, version VARCHAR NOT NULL, method VARCHAR NOT NULL, budget INTEGER NOT NULL,
                target VARCHAR NOT NULL, part VARCHAR NOT NULL, content VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # the last row of an id holds; state: open, agreed or declined. A text is here because somebody sent it for review
            """CREATE TABLE reviews (
                n INTEGER NOT NULL, id VARCHAR NOT NULL, task VARCHAR NOT NULL, version VARCHAR NOT NULL, text VARCHAR NOT NULL,
                predicted VARCHAR NOT NULL, score DOUBLE NOT NULL, suggested VARCHAR NOT NULL, note VARCHAR NOT NULL,
                state VARCHAR NOT NULL, who VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # a version looked at as a whole, on the labelled rows it did not learn from; the last row of a version holds
            """CREATE TABLE overviews (
                task VARCHAR NOT NULL, version VARCHAR NOT NULL, run_id VARCHAR NOT NULL, content VARCHAR NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "012_recommendations",
        (
            # what people did, as it came in: n is the order of arrival, id makes sending twice harmless. kind: view, click, like, skip,
            # rate, forget (a person takes the item out of their own past), keep (takes that back) or shown (the live learner put it on
            # the list; value: with which probability); value else: a rating, or NULL. source: page, api or bandit
            """CREATE TABLE interactions (
                n BIGINT NOT NULL, id VARCHAR NOT NULL, dataset VARCHAR NOT NULL, who VARCHAR NOT NULL, item VARCHAR NOT NULL,
                kind VARCHAR NOT NULL, value DOUBLE, source VARCHAR NOT NULL, happened_at TIMESTAMP NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
            # changes of a catalogue between two trainings; the last row of an item holds. state: live or removed
            """CREATE TABLE catalogue_items (
                n BIGINT NOT NULL, dataset VARCHAR NOT NULL, item VARCHAR NOT NULL, title VARCHAR NOT NULL, text VARCHAR NOT NULL,
                state VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # up to which interaction a version's counts go beyond what it was trained on; the last row of a version holds
            """CREATE TABLE recommend_folds (
                version VARCHAR NOT NULL, up_to BIGINT NOT NULL, n_events INTEGER NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # agents against each other in the simulator, and what logged data say of them; the last row of a version holds
            """CREATE TABLE contests (
                version VARCHAR NOT NULL, run_id VARCHAR NOT NULL, content VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
        ),
    ),
    (
        "013_lab",
        (
            # what a study found: kind is labels, ablation, board or adaptation; content its tables and sentences as JSON. The newest row of
            # (kind, task, dataset) holds, one of a run is there once
            """CREATE TABLE studies (
                id VARCHAR NOT NULL, kind VARCHAR NOT NULL, task VARCHAR NOT NULL, dataset VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
                content VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)""",
            # how a task is trained where nobody says: the last row of a task holds; choice is {recipe, base, options} as JSON, or {} for
            # that of tasks.py; study_id names the table that is the reason
            """CREATE TABLE task_defaults (
                task VARCHAR NOT NULL, choice VARCHAR NOT NULL, study_id VARCHAR NOT NULL, reason VARCHAR NOT NULL, who VARCHAR NOT NULL,
                noted_at TIMESTAMP NOT NULL)""",
            # what a run was made of and cost, as JSON: code, data, device, energy, artefacts, parent; the last row of a run holds
            "CREATE TABLE run_facts (run_id VARCHAR NOT NULL, facts VARCHAR NOT NULL, noted_at TIMESTAMP NOT NULL)",
        ),
    ),
]
