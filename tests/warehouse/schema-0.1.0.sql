-- The tables and views that accelkd 0.1.0 made, without comments: what its homes hold.

CREATE TABLE batches (
    batch_id VARCHAR PRIMARY KEY,
    source VARCHAR NOT NULL,
    devices VARCHAR[] NOT NULL,
    recordings BIGINT NOT NULL,
    participants BIGINT NOT NULL,
    segments BIGINT NOT NULL,
    quarantined BIGINT NOT NULL
);

CREATE TABLE demographics (
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    sex VARCHAR,
    age_years DOUBLE,
    height_m DOUBLE,
    bmi_kg_m2 DOUBLE
);

CREATE TABLE survey_targets (
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    value BOOLEAN
);

CREATE TABLE split (
    participant_id VARCHAR PRIMARY KEY,
    split VARCHAR NOT NULL,
    sex VARCHAR NOT NULL,
    age_band VARCHAR NOT NULL,
    device_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL
);

CREATE TABLE segments (
    segment_id VARCHAR NOT NULL,
    recording_id VARCHAR NOT NULL,
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    device_id VARCHAR NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    offset_s DOUBLE NOT NULL,
    motion_median_g DOUBLE NOT NULL,
    motion_p95_g DOUBLE NOT NULL,
    hr_bpm DOUBLE,
    sdnn_ms DOUBLE,
    rmssd_ms DOUBLE,
    label_channel TINYINT,
    label_agreement DOUBLE,
    label_template_correlation DOUBLE,
    label_coverage DOUBLE,
    label_good BOOLEAN NOT NULL,
    reference_hr_bpm DOUBLE,
    reference_sdnn_ms DOUBLE,
    reference_rmssd_ms DOUBLE,
    ppg_status UTINYINT[] NOT NULL,
    accel_status UTINYINT[] NOT NULL
);

CREATE TABLE quarantine (
    batch_id VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    participants BIGINT NOT NULL
);

CREATE TABLE retired_batches (
    batch_id VARCHAR PRIMARY KEY,
    replaced_by VARCHAR NOT NULL
);

CREATE TABLE models (
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    modality VARCHAR NOT NULL,
    channels INTEGER NOT NULL,
    embedding_dim INTEGER NOT NULL,
    parameters BIGINT NOT NULL,
    split_version VARCHAR NOT NULL,
    config JSON NOT NULL,
    metrics JSON NOT NULL,
    PRIMARY KEY (encoder, model_id)
);

CREATE TABLE promotions (
    number INTEGER NOT NULL,
    action VARCHAR NOT NULL,
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    criteria JSON NOT NULL,
    PRIMARY KEY (number, encoder)
);

CREATE SCHEMA IF NOT EXISTS embeddings;

CREATE TABLE probe_results (
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    split_version VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    train_participants BIGINT NOT NULL,
    train_segments BIGINT NOT NULL,
    test_participants BIGINT NOT NULL,
    test_segments BIGINT NOT NULL,
    ridge_alpha DOUBLE NOT NULL,
    mae DOUBLE NOT NULL,
    rmse DOUBLE NOT NULL,
    pearson_r DOUBLE,
    constant_mae DOUBLE NOT NULL,
    constant_rmse DOUBLE NOT NULL,
    PRIMARY KEY (encoder, model_id, target)
);

CREATE TABLE participant_probe_results (
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    split_version VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    unit VARCHAR,
    train_participants BIGINT NOT NULL,
    test_participants BIGINT NOT NULL,
    train_yes BIGINT,
    train_no BIGINT,
    test_yes BIGINT,
    test_no BIGINT,
    ridge_alpha DOUBLE,
    mae DOUBLE,
    rmse DOUBLE,
    pearson_r DOUBLE,
    constant_mae DOUBLE,
    constant_rmse DOUBLE,
    auc DOUBLE,
    auc_low DOUBLE,
    auc_high DOUBLE,
    not_decidable VARCHAR,
    PRIMARY KEY (encoder, model_id, target)
);

CREATE TABLE retrieval_results (
    query_encoder VARCHAR NOT NULL,
    query_model_id VARCHAR NOT NULL,
    key_encoder VARCHAR NOT NULL,
    key_model_id VARCHAR NOT NULL,
    split_version VARCHAR NOT NULL,
    space VARCHAR NOT NULL,
    pools INTEGER NOT NULL,
    participants DOUBLE NOT NULL,
    segments DOUBLE NOT NULL,
    top1_percent DOUBLE NOT NULL,
    top1_percent_sd DOUBLE NOT NULL,
    mean_rank DOUBLE NOT NULL,
    mean_rank_sd DOUBLE NOT NULL,
    chance_top1_percent DOUBLE NOT NULL,
    chance_mean_rank DOUBLE NOT NULL,
    PRIMARY KEY (query_encoder, query_model_id, key_encoder, key_model_id, space)
);

CREATE SCHEMA IF NOT EXISTS reproduction;

CREATE TABLE reproduction.results (
    experiment VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    target VARCHAR NOT NULL,
    level VARCHAR NOT NULL,
    label_fraction DOUBLE NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    train_n BIGINT NOT NULL,
    test_n BIGINT NOT NULL
);

CREATE TABLE reproduction.retrieval (
    experiment VARCHAR NOT NULL,
    teacher VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    space VARCHAR NOT NULL,
    direction VARCHAR NOT NULL,
    pools BIGINT NOT NULL,
    participants DOUBLE NOT NULL,
    segments DOUBLE NOT NULL,
    top1_percent DOUBLE NOT NULL,
    top1_percent_sd DOUBLE NOT NULL,
    mean_rank DOUBLE NOT NULL,
    mean_rank_sd DOUBLE NOT NULL,
    chance_top1_percent DOUBLE NOT NULL,
    chance_mean_rank DOUBLE NOT NULL
);

CREATE TABLE reproduction.claims (
    claim_id VARCHAR PRIMARY KEY,
    sentence VARCHAR NOT NULL,
    where_in_paper VARCHAR NOT NULL,
    rule VARCHAR NOT NULL,
    paper VARCHAR NOT NULL,
    ours VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,
    seeds BIGINT NOT NULL,
    note VARCHAR NOT NULL
);

CREATE SCHEMA IF NOT EXISTS provenance;

CREATE TABLE provenance.artifacts (
    artifact_id VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL,
    path VARCHAR,
    version VARCHAR NOT NULL,
    code_version VARCHAR,
    configuration JSON
);

CREATE TABLE provenance.edges (
    artifact_id VARCHAR NOT NULL,
    input_id VARCHAR NOT NULL,
    input_version VARCHAR NOT NULL,
    PRIMARY KEY (artifact_id, input_id)
);

CREATE TABLE provenance.runs (
    artifact_id VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    run_id VARCHAR,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (artifact_id, version)
);

CREATE TABLE provenance.model_participants (
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    participant_id VARCHAR,
    batch_id VARCHAR NOT NULL,
    segments BIGINT NOT NULL
);

CREATE OR REPLACE VIEW participants AS
SELECT
    participant_id,
    arg_max(sex, batch_id) AS sex,
    arg_max(age_years, batch_id) AS age_years,
    arg_max(height_m, batch_id) AS height_m,
    arg_max(bmi_kg_m2, batch_id) AS bmi_kg_m2,
    any_value(side) AS split,
    min(batch_id) AS first_batch_id
FROM demographics LEFT JOIN (SELECT participant_id, split AS side FROM split) USING (participant_id)
GROUP BY participant_id;

CREATE OR REPLACE MACRO similar_segments(encoder, segment, k) AS TABLE
SELECT
    other.segment_id,
    other.participant_id,
    array_cosine_similarity(this.embedding, other.embedding) AS similarity
FROM query_table('embeddings.' || encoder) AS this, query_table('embeddings.' || encoder) AS other
WHERE this.segment_id = segment AND other.segment_id <> segment
ORDER BY similarity DESC, other.segment_id
LIMIT k;

CREATE OR REPLACE MACRO participant_embedding(encoder) AS TABLE
SELECT participant_id, segments, embedding
FROM query_table('embeddings.' || encoder || '__by_participant')
ORDER BY participant_id;

CREATE OR REPLACE MACRO lineage_of(artifact) AS TABLE
WITH RECURSIVE line AS (
    SELECT 0 AS depth, artifact_id, version FROM provenance.artifacts WHERE artifact_id = artifact
    UNION
    SELECT depth + 1, input_id, input_version FROM line JOIN provenance.edges USING (artifact_id)
)
SELECT
    min(depth) AS depth,
    artifact_id,
    kind,
    path,
    line.version AS version_used,
    artifacts.version AS version_now,
    any_value(code_version) AS code_version,
    any_value(configuration) AS configuration,
    any_value(run_id) AS run_id
FROM line JOIN provenance.artifacts USING (artifact_id)
LEFT JOIN provenance.runs ON runs.artifact_id = line.artifact_id AND runs.version = line.version
GROUP BY artifact_id, kind, path, version_used, version_now
ORDER BY depth, artifact_id;

CREATE OR REPLACE VIEW model_cohort AS
WITH RECURSIVE line AS (
    SELECT encoder, model_id, encoder AS through_encoder, model_id AS through_model_id FROM models
    UNION
    SELECT line.encoder, line.model_id, teacher.encoder, teacher.model_id
    FROM line
    JOIN models AS student ON student.encoder = through_encoder AND student.model_id = through_model_id
    JOIN models AS teacher ON teacher.model_id = student.config ->> 'teacher'
)
SELECT line.encoder, line.model_id, participant_id, through_encoder, through_model_id, batch_id, segments
FROM line
JOIN provenance.model_participants AS inside
    ON inside.encoder = through_encoder AND inside.model_id = through_model_id;

CREATE OR REPLACE MACRO participants_in(model) AS TABLE
SELECT participant_id, through_encoder, through_model_id, batch_id, segments
FROM model_cohort
WHERE model_id = model
ORDER BY ALL;

CREATE OR REPLACE VIEW participant_targets AS
SELECT participant_id, target, arg_max(value, batch_id) AS value
FROM survey_targets
GROUP BY participant_id, target;

CREATE OR REPLACE VIEW probe_leaderboard AS
SELECT
    target,
    rank() OVER (PARTITION BY target, split_version ORDER BY mae) AS place,
    encoder,
    model_id,
    mae,
    constant_mae,
    unit,
    100 * (1 - mae / nullif(constant_mae, 0)) AS better_than_constant_percent,
    pearson_r,
    test_participants,
    test_segments,
    split_version,
    'probe:' || encoder || '/' || model_id AS artifact_id
FROM probe_results
ORDER BY target, split_version, place, encoder, model_id;

CREATE OR REPLACE VIEW cohort_summary AS
SELECT
    split,
    device_id,
    count(*) AS participants,
    count(*) FILTER (sex = 'female') AS female,
    median(age_years) AS age_median_years,
    sum(segments)::BIGINT AS segments,
    sum(labelled)::BIGINT AS labelled_segments,
    sum(hr_bpm_sum) / nullif(sum(labelled), 0) AS hr_bpm_mean
FROM (
    SELECT
        participant_id,
        device_id,
        count(*) AS segments,
        count(*) FILTER (label_good) AS labelled,
        sum(hr_bpm) AS hr_bpm_sum
    FROM segments
    GROUP BY participant_id, device_id
) JOIN participants USING (participant_id)
GROUP BY split, device_id
ORDER BY split DESC NULLS LAST, device_id;

CREATE TABLE schema_version (sha256 VARCHAR NOT NULL);
