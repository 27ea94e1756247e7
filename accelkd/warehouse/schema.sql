-- The warehouse: what analysts query. Signals stay in the segment store; embeddings.<encoder> are made when first loaded.

CREATE TABLE batches (
    batch_id VARCHAR PRIMARY KEY,
    source VARCHAR NOT NULL,
    devices VARCHAR[] NOT NULL,
    recordings BIGINT NOT NULL,
    participants BIGINT NOT NULL,
    segments BIGINT NOT NULL,
    quarantined BIGINT NOT NULL
);
COMMENT ON TABLE batches IS 'One row per arrival batch that has been loaded';
COMMENT ON COLUMN batches.batch_id IS 'Name of the batch in the landing zone';
COMMENT ON COLUMN batches.source IS '''simulation'', or the device that was ingested';
COMMENT ON COLUMN batches.devices IS 'Devices of its recordings (docs/devices.md)';
COMMENT ON COLUMN batches.recordings IS 'Recordings that arrived, good or not';
COMMENT ON COLUMN batches.participants IS 'Participants that the batch describes';
COMMENT ON COLUMN batches.segments IS 'Segments cut from it';
COMMENT ON COLUMN batches.quarantined IS 'Windows, recordings and files that did not become a segment';

CREATE TABLE demographics (
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    sex VARCHAR,
    age_years DOUBLE,
    height_m DOUBLE,
    bmi_kg_m2 DOUBLE
);
COMMENT ON TABLE demographics IS 'Participants as each batch described them; the view participants has one row for each';
COMMENT ON COLUMN demographics.participant_id IS 'Pseudonym';
COMMENT ON COLUMN demographics.batch_id IS 'Batch that says so';
COMMENT ON COLUMN demographics.sex IS 'Assigned at birth: female or male; null unknown';
COMMENT ON COLUMN demographics.age_years IS 'Self-reported age; null unknown';
COMMENT ON COLUMN demographics.height_m IS 'Height; null unknown';
COMMENT ON COLUMN demographics.bmi_kg_m2 IS 'Body mass index; null unknown';

CREATE TABLE split (
    participant_id VARCHAR PRIMARY KEY,
    split VARCHAR NOT NULL,
    sex VARCHAR NOT NULL,
    age_band VARCHAR NOT NULL,
    device_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL
);
COMMENT ON TABLE split IS 'The split ledger: participants never change sides';
COMMENT ON COLUMN split.participant_id IS 'Pseudonym';
COMMENT ON COLUMN split.split IS 'train or test';
COMMENT ON COLUMN split.sex IS 'Stratum: sex when assigned';
COMMENT ON COLUMN split.age_band IS 'Stratum: ten-year band of the age when assigned';
COMMENT ON COLUMN split.device_id IS 'Stratum: device of the first recording';
COMMENT ON COLUMN split.batch_id IS 'Batch that the participant first came with';

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
COMMENT ON TABLE segments IS 'One row per 60 s segment: when, who, labels, quality; its signals are in the segment store';
COMMENT ON COLUMN segments.segment_id IS 'Hash of recording and offset: the same in every run';
COMMENT ON COLUMN segments.recording_id IS 'Recording that it was cut from';
COMMENT ON COLUMN segments.participant_id IS 'Pseudonym';
COMMENT ON COLUMN segments.batch_id IS 'Arrival batch';
COMMENT ON COLUMN segments.device_id IS 'Device (docs/devices.md)';
COMMENT ON COLUMN segments.started_at IS 'Instant of its first PPG sample; null where the device tells no absolute time';
COMMENT ON COLUMN segments.offset_s IS 'Seconds from the start of the recording';
COMMENT ON COLUMN segments.motion_median_g IS 'Median over its seconds of the spread of acceleration';
COMMENT ON COLUMN segments.motion_p95_g IS '95th percentile over its seconds of the spread of acceleration';
COMMENT ON COLUMN segments.hr_bpm IS 'Heart rate from the PPG; null unless label_good';
COMMENT ON COLUMN segments.sdnn_ms IS 'Standard deviation of normal-to-normal intervals from the PPG; null unless label_good';
COMMENT ON COLUMN segments.rmssd_ms IS 'Root mean square of successive differences from the PPG; null unless label_good';
COMMENT ON COLUMN segments.label_channel IS 'PPG channel that the labels come from, from 0';
COMMENT ON COLUMN segments.label_agreement IS 'Share of beats that two independent beat finders agree on';
COMMENT ON COLUMN segments.label_template_correlation IS 'Mean correlation of each beat with the mean beat';
COMMENT ON COLUMN segments.label_coverage IS 'Share of the minute covered by accepted intervals';
COMMENT ON COLUMN segments.label_good IS 'Agreement, template correlation and coverage all pass';
COMMENT ON COLUMN segments.reference_hr_bpm IS 'Heart rate from what travelled with the recording (ECG, device or simulation)';
COMMENT ON COLUMN segments.reference_sdnn_ms IS 'SDNN from what travelled with the recording';
COMMENT ON COLUMN segments.reference_rmssd_ms IS 'RMSSD from what travelled with the recording';
COMMENT ON COLUMN segments.ppg_status IS 'Per PPG channel: 0 good, else bits 1 short, 2 gap, 4 missing, 8 flat; such a row is zeros';
COMMENT ON COLUMN segments.accel_status IS 'Per accelerometer axis: 0 good, else bits 1 short, 2 gap, 4 missing, 8 flat';

CREATE TABLE quarantine (
    batch_id VARCHAR NOT NULL,
    unit VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    participants BIGINT NOT NULL
);
COMMENT ON TABLE quarantine IS 'What did not become a segment, counted by reason; the rows are in quarantine/<batch>.parquet';
COMMENT ON COLUMN quarantine.batch_id IS 'Arrival batch';
COMMENT ON COLUMN quarantine.unit IS 'file, recording or window';
COMMENT ON COLUMN quarantine.reason IS 'Why (docs/data-model.md lists the reasons)';
COMMENT ON COLUMN quarantine.number IS 'Number of such files, recordings or windows';
COMMENT ON COLUMN quarantine.participants IS 'Number of participants concerned, where it could be told';

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
COMMENT ON TABLE models IS 'One row per encoder checkpoint that was loaded';
COMMENT ON COLUMN models.encoder IS 'ppg_teacher, accel_student, ...';
COMMENT ON COLUMN models.model_id IS 'Hash of configuration, code, data and split: same inputs, same id';
COMMENT ON COLUMN models.modality IS 'What it embeds: ppg or accel';
COMMENT ON COLUMN models.channels IS 'Channels that it takes; a PPG encoder embeds only segments with as many PPG channels';
COMMENT ON COLUMN models.embedding_dim IS 'Width of its embedding';
COMMENT ON COLUMN models.parameters IS 'Number of its parameters';
COMMENT ON COLUMN models.split_version IS 'Split whose training participants it was trained on';
COMMENT ON COLUMN models.config IS 'config.json of the checkpoint';
COMMENT ON COLUMN models.metrics IS 'metrics.json of the checkpoint';

CREATE SCHEMA embeddings;

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
COMMENT ON TABLE probe_results IS 'Ridge probes on frozen embeddings: fitted on training, measured on test participants';
COMMENT ON COLUMN probe_results.encoder IS 'Encoder whose embeddings were probed';
COMMENT ON COLUMN probe_results.model_id IS 'Its checkpoint';
COMMENT ON COLUMN probe_results.split_version IS 'Split that said who is in training and in test';
COMMENT ON COLUMN probe_results.target IS 'hr_bpm, sdnn_ms or rmssd_ms';
COMMENT ON COLUMN probe_results.unit IS 'Unit of the target and its errors';
COMMENT ON COLUMN probe_results.train_participants IS 'Participants that the probe was fitted on';
COMMENT ON COLUMN probe_results.train_segments IS 'Segments that the probe was fitted on';
COMMENT ON COLUMN probe_results.test_participants IS 'Participants that it was measured on';
COMMENT ON COLUMN probe_results.test_segments IS 'Segments that it was measured on';
COMMENT ON COLUMN probe_results.ridge_alpha IS 'Chosen by cross-validation grouped by participant, on standardised embeddings';
COMMENT ON COLUMN probe_results.mae IS 'Mean absolute error';
COMMENT ON COLUMN probe_results.rmse IS 'Root mean squared error';
COMMENT ON COLUMN probe_results.pearson_r IS 'Pearson correlation of prediction and target; null where one of them is constant';
COMMENT ON COLUMN probe_results.constant_mae IS 'Mean absolute error of the median of the training targets';
COMMENT ON COLUMN probe_results.constant_rmse IS 'Root mean squared error of the mean of the training targets';

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
COMMENT ON TABLE retrieval_results IS 'How well one modality finds the same minute of the other, in test participants';
COMMENT ON COLUMN retrieval_results.query_encoder IS 'Encoder of the query';
COMMENT ON COLUMN retrieval_results.query_model_id IS 'Its checkpoint';
COMMENT ON COLUMN retrieval_results.key_encoder IS 'Encoder of the candidates';
COMMENT ON COLUMN retrieval_results.key_model_id IS 'Its checkpoint';
COMMENT ON COLUMN retrieval_results.split_version IS 'Split that said who is in test';
COMMENT ON COLUMN retrieval_results.space IS 'projected: after the trained heads; raw: the embeddings themselves';
COMMENT ON COLUMN retrieval_results.pools IS 'Number of bootstrap candidate pools';
COMMENT ON COLUMN retrieval_results.participants IS 'Mean number of participants of a pool';
COMMENT ON COLUMN retrieval_results.segments IS 'Mean number of candidates of a pool';
COMMENT ON COLUMN retrieval_results.top1_percent IS 'Queries whose own pair ranks first, mean over pools';
COMMENT ON COLUMN retrieval_results.top1_percent_sd IS 'Standard deviation over pools';
COMMENT ON COLUMN retrieval_results.mean_rank IS 'Mean rank of the own pair, mean over pools; 1 is perfect';
COMMENT ON COLUMN retrieval_results.mean_rank_sd IS 'Standard deviation over pools';
COMMENT ON COLUMN retrieval_results.chance_top1_percent IS 'Of a random ranking of the same pools';
COMMENT ON COLUMN retrieval_results.chance_mean_rank IS 'Of a random ranking of the same pools';

CREATE SCHEMA provenance;

CREATE TABLE provenance.artifacts (
    artifact_id VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL,
    path VARCHAR,
    version VARCHAR NOT NULL
);
COMMENT ON TABLE provenance.artifacts IS 'Every file, checkpoint, table partition and report, as it is now';
COMMENT ON COLUMN provenance.artifacts.artifact_id IS 'kind:name, such as segments:2026-11-a';
COMMENT ON COLUMN provenance.artifacts.kind IS 'file, batch, segments, split, model, embeddings, probe, retrieval or report';
COMMENT ON COLUMN provenance.artifacts.path IS 'Where it lies, relative to the home; null for rows of a table';
COMMENT ON COLUMN provenance.artifacts.version IS 'SHA-256 of a file, identity of a checkpoint or split, hash of the inputs otherwise';

CREATE TABLE provenance.edges (
    artifact_id VARCHAR NOT NULL,
    input_id VARCHAR NOT NULL,
    input_version VARCHAR NOT NULL,
    PRIMARY KEY (artifact_id, input_id)
);
COMMENT ON TABLE provenance.edges IS 'What each artifact was made from';
COMMENT ON COLUMN provenance.edges.artifact_id IS 'The artifact';
COMMENT ON COLUMN provenance.edges.input_id IS 'What it was made from';
COMMENT ON COLUMN provenance.edges.input_version IS 'The version that it was made from; the artifact is stale where this is not the current one';

CREATE VIEW participants AS
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
COMMENT ON VIEW participants IS 'One row per participant: the last known of each fact over all batches, and the side of the split';
COMMENT ON COLUMN participants.participant_id IS 'Pseudonym';
COMMENT ON COLUMN participants.sex IS 'Assigned at birth: female or male; null unknown';
COMMENT ON COLUMN participants.age_years IS 'Self-reported age; null unknown';
COMMENT ON COLUMN participants.height_m IS 'Height; null unknown';
COMMENT ON COLUMN participants.bmi_kg_m2 IS 'Body mass index; null unknown';
COMMENT ON COLUMN participants.split IS 'train or test; null without a segment';
COMMENT ON COLUMN participants.first_batch_id IS 'Batch that first described the participant';

-- The k segments whose embeddings are most like one segment's: FROM similar_segments('ppg_teacher', '0123456789abcdef', 10)
CREATE MACRO similar_segments(encoder, segment, k) AS TABLE
SELECT
    other.segment_id,
    other.participant_id,
    array_cosine_similarity(this.embedding, other.embedding) AS similarity
FROM query_table('embeddings.' || encoder) AS this, query_table('embeddings.' || encoder) AS other
WHERE this.segment_id = segment AND other.segment_id <> segment
ORDER BY similarity DESC, other.segment_id
LIMIT k;
COMMENT ON MACRO TABLE similar_segments IS '(encoder, segment, k): the k most similar segments by cosine similarity';

-- Mean embedding of every participant: FROM participant_embedding('ppg_teacher')
CREATE MACRO participant_embedding(encoder) AS TABLE
WITH long AS (
    SELECT participant_id, unnest(embedding::FLOAT[]) AS value, generate_subscripts(embedding::FLOAT[], 1) AS position
    FROM query_table('embeddings.' || encoder)
), means AS (
    SELECT participant_id, position, avg(value)::FLOAT AS value, count(*) AS segments
    FROM long GROUP BY participant_id, position
)
SELECT participant_id, any_value(segments) AS segments, list(value ORDER BY position) AS embedding
FROM means GROUP BY participant_id ORDER BY participant_id;
COMMENT ON MACRO TABLE participant_embedding IS '(encoder): mean embedding and number of segments of every participant';

-- Everything that an artifact was made from, down to the raw files: FROM lineage_of('probe:accel_student')
CREATE MACRO lineage_of(artifact) AS TABLE
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
    artifacts.version AS version_now
FROM line JOIN provenance.artifacts USING (artifact_id)
GROUP BY artifact_id, kind, path, version_used, version_now
ORDER BY depth, artifact_id;
COMMENT ON MACRO TABLE lineage_of IS '(artifact): all that it was made from, with the versions then and now';

CREATE TABLE schema_version (sha256 VARCHAR NOT NULL);
COMMENT ON TABLE schema_version IS 'Which version of the schema made this file';
COMMENT ON COLUMN schema_version.sha256 IS 'SHA-256 of accelkd/warehouse/schema.sql';
