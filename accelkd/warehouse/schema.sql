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

CREATE TABLE survey_targets (
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    value BOOLEAN
);
COMMENT ON TABLE survey_targets IS 'Health targets as the survey of each batch defines them; the view participant_targets has one row for each';
COMMENT ON COLUMN survey_targets.participant_id IS 'Pseudonym';
COMMENT ON COLUMN survey_targets.batch_id IS 'Batch that the answers came with';
COMMENT ON COLUMN survey_targets.target IS 'Condition, medication or habit, such as diabetes (accelkd/cohort/survey.py defines all)';
COMMENT ON COLUMN survey_targets.value IS 'True or false; null where the answers say neither, which leaves the participant out';

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

CREATE TABLE superseded_batches (
    batch_id VARCHAR PRIMARY KEY,
    replaced_by VARCHAR NOT NULL
);
COMMENT ON TABLE superseded_batches IS 'Batches that a correction has replaced; nothing else of them is left in these tables';
COMMENT ON COLUMN superseded_batches.batch_id IS 'The batch that is gone';
COMMENT ON COLUMN superseded_batches.replaced_by IS 'The batch that corrects it';

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

CREATE TABLE promotions (
    number INTEGER NOT NULL,
    action VARCHAR NOT NULL,
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    criteria JSON NOT NULL,
    PRIMARY KEY (number, encoder)
);
COMMENT ON TABLE promotions IS 'What was decided about trained encoders, in order; teacher and student share a decision';
COMMENT ON COLUMN promotions.number IS 'Number of the decision, from 1; when it was made is in checkpoints/promotions.json';
COMMENT ON COLUMN promotions.action IS 'promoted, rejected or rolled back (to this model)';
COMMENT ON COLUMN promotions.encoder IS 'ppg_teacher or accel_student';
COMMENT ON COLUMN promotions.model_id IS 'Checkpoint that was decided about';
COMMENT ON COLUMN promotions.reason IS 'Why';
COMMENT ON COLUMN promotions.criteria IS 'What was measured on held-out participants, beside its threshold';

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
COMMENT ON TABLE participant_probe_results IS 'Ridge probes of participants: age, BMI, sex and health targets from mean embeddings';
COMMENT ON COLUMN participant_probe_results.encoder IS 'Encoder whose embeddings were probed, averaged over each participant';
COMMENT ON COLUMN participant_probe_results.model_id IS 'Its checkpoint';
COMMENT ON COLUMN participant_probe_results.split_version IS 'Split that said who is in training and in test';
COMMENT ON COLUMN participant_probe_results.target IS 'age, bmi, sex or a health target of the survey (accelkd/cohort/survey.py)';
COMMENT ON COLUMN participant_probe_results.unit IS 'Unit of age and BMI and their errors; null of yes-or-no targets';
COMMENT ON COLUMN participant_probe_results.train_participants IS 'Training participants that have a value';
COMMENT ON COLUMN participant_probe_results.test_participants IS 'Test participants that have a value';
COMMENT ON COLUMN participant_probe_results.train_yes IS 'Training participants with yes (of sex: male); null of age and BMI';
COMMENT ON COLUMN participant_probe_results.train_no IS 'Training participants with no';
COMMENT ON COLUMN participant_probe_results.test_yes IS 'Test participants with yes';
COMMENT ON COLUMN participant_probe_results.test_no IS 'Test participants with no';
COMMENT ON COLUMN participant_probe_results.ridge_alpha IS 'Chosen by cross-validation inside the training participants, on standardised embeddings';
COMMENT ON COLUMN participant_probe_results.mae IS 'Mean absolute error; null of yes-or-no targets';
COMMENT ON COLUMN participant_probe_results.rmse IS 'Root mean squared error';
COMMENT ON COLUMN participant_probe_results.pearson_r IS 'Pearson correlation of prediction and value; null where one of them is constant';
COMMENT ON COLUMN participant_probe_results.constant_mae IS 'Mean absolute error of the median of the training values';
COMMENT ON COLUMN participant_probe_results.constant_rmse IS 'Root mean squared error of the mean of the training values';
COMMENT ON COLUMN participant_probe_results.auc IS 'Area under the ROC curve; null of age and BMI';
COMMENT ON COLUMN participant_probe_results.auc_low IS '2.5th percentile of the area over 200 bootstraps of the test participants';
COMMENT ON COLUMN participant_probe_results.auc_high IS '97.5th percentile of it';
COMMENT ON COLUMN participant_probe_results.not_decidable IS 'Why nothing could be measured, such as one class only; null where it was';

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
COMMENT ON TABLE reproduction.results IS 'The paper''s experiments on a simulated cohort: one row for each encoder, target, share of labels and metric';
COMMENT ON COLUMN reproduction.results.experiment IS 'What was trained (docs/reproduction.md); constant is the best constant of the training labels';
COMMENT ON COLUMN reproduction.results.seed IS 'Seed of its training';
COMMENT ON COLUMN reproduction.results.target IS 'hr_bpm, sdnn_ms, rmssd_ms, age, bmi, sex or a health target of the survey';
COMMENT ON COLUMN reproduction.results.level IS 'segment: one sample is a minute; participant: one is the mean embedding of a person';
COMMENT ON COLUMN reproduction.results.label_fraction IS 'Share of the training labels that the probe or the supervised encoder got';
COMMENT ON COLUMN reproduction.results.metric IS 'mae, rmse, pearson_r or auc';
COMMENT ON COLUMN reproduction.results.value IS 'On the test participants; null where it cannot be told';
COMMENT ON COLUMN reproduction.results.train_n IS 'Segments or participants that it was fitted on';
COMMENT ON COLUMN reproduction.results.test_n IS 'Segments or participants that it was measured on';

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
COMMENT ON TABLE reproduction.retrieval IS 'The paper''s retrieval experiments (tables 1 and 8) on a simulated cohort';
COMMENT ON COLUMN reproduction.retrieval.experiment IS 'Accelerometer encoder';
COMMENT ON COLUMN reproduction.retrieval.teacher IS 'PPG encoder: its teacher, or the one that it was aligned with';
COMMENT ON COLUMN reproduction.retrieval.seed IS 'Seed of its training';
COMMENT ON COLUMN reproduction.retrieval.space IS 'projected: after the trained heads; raw: the embeddings themselves; procrustes: after alignment';
COMMENT ON COLUMN reproduction.retrieval.direction IS 'ppg_from_accel or accel_from_ppg';
COMMENT ON COLUMN reproduction.retrieval.pools IS 'Number of bootstrap candidate pools';
COMMENT ON COLUMN reproduction.retrieval.participants IS 'Mean number of participants of a pool';
COMMENT ON COLUMN reproduction.retrieval.segments IS 'Mean number of candidates of a pool';
COMMENT ON COLUMN reproduction.retrieval.top1_percent IS 'Queries whose own pair ranks first, mean over pools';
COMMENT ON COLUMN reproduction.retrieval.top1_percent_sd IS 'Standard deviation over pools';
COMMENT ON COLUMN reproduction.retrieval.mean_rank IS 'Mean rank of the own pair, mean over pools; 1 is perfect';
COMMENT ON COLUMN reproduction.retrieval.mean_rank_sd IS 'Standard deviation over pools';
COMMENT ON COLUMN reproduction.retrieval.chance_top1_percent IS 'Of a random ranking of the same pools';
COMMENT ON COLUMN reproduction.retrieval.chance_mean_rank IS 'Of a random ranking of the same pools';

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
COMMENT ON TABLE reproduction.claims IS 'Every comparative claim of the paper, and whether it holds on the simulated cohort';
COMMENT ON COLUMN reproduction.claims.claim_id IS 'Short name of the claim';
COMMENT ON COLUMN reproduction.claims.sentence IS 'The claim in our words';
COMMENT ON COLUMN reproduction.claims.where_in_paper IS 'Sections and tables';
COMMENT ON COLUMN reproduction.claims.rule IS 'When it holds';
COMMENT ON COLUMN reproduction.claims.paper IS 'The paper''s figures';
COMMENT ON COLUMN reproduction.claims.ours IS 'Ours';
COMMENT ON COLUMN reproduction.claims.verdict IS 'holds, does not hold or not decidable';
COMMENT ON COLUMN reproduction.claims.seeds IS 'Seeds that it rests on';
COMMENT ON COLUMN reproduction.claims.note IS 'What to know when reading it';

CREATE SCHEMA IF NOT EXISTS provenance;

CREATE TABLE provenance.artifacts (
    artifact_id VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL,
    path VARCHAR,
    version VARCHAR NOT NULL,
    code_version VARCHAR,
    configuration JSON
);
COMMENT ON TABLE provenance.artifacts IS 'Every file, checkpoint, table partition and report, as it is now';
COMMENT ON COLUMN provenance.artifacts.artifact_id IS 'kind:name, such as segments:2026-11-a';
COMMENT ON COLUMN provenance.artifacts.kind IS 'file, batch, segments, quarantine, tables, split, model, embeddings, probe, retrieval, map, reproduction or report';
COMMENT ON COLUMN provenance.artifacts.path IS 'Where it lies, relative to the home; null for rows of a table';
COMMENT ON COLUMN provenance.artifacts.version IS 'SHA-256 of a file, identity of a checkpoint or split, hash of the inputs or results otherwise';
COMMENT ON COLUMN provenance.artifacts.code_version IS 'Package that made it and the hash of its source text; null for what arrived';
COMMENT ON COLUMN provenance.artifacts.configuration IS 'Settings that it was made with; null where there are none';

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

CREATE TABLE provenance.runs (
    artifact_id VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    run_id VARCHAR,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (artifact_id, version)
);
COMMENT ON TABLE provenance.runs IS 'Which run made each version of an artifact last; the one table that differs when the same is made again';
COMMENT ON COLUMN provenance.runs.artifact_id IS 'The artifact';
COMMENT ON COLUMN provenance.runs.version IS 'The version that the run made';
COMMENT ON COLUMN provenance.runs.run_id IS 'Run of the orchestrator, as its UI names it; null where none made it';
COMMENT ON COLUMN provenance.runs.recorded_at IS 'When it was written into the warehouse';

CREATE TABLE provenance.model_participants (
    encoder VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    participant_id VARCHAR,
    batch_id VARCHAR NOT NULL,
    segments BIGINT NOT NULL
);
COMMENT ON TABLE provenance.model_participants IS 'Whose segments each checkpoint itself was trained on, written down when it was trained; participants_in adds its teacher''s';
COMMENT ON COLUMN provenance.model_participants.encoder IS 'Encoder of the checkpoint';
COMMENT ON COLUMN provenance.model_participants.model_id IS 'The checkpoint';
COMMENT ON COLUMN provenance.model_participants.participant_id IS 'Pseudonym; null for somebody who has withdrawn since';
COMMENT ON COLUMN provenance.model_participants.batch_id IS 'Batch of the segments';
COMMENT ON COLUMN provenance.model_participants.segments IS 'Number of the segments';

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
COMMENT ON VIEW participants IS 'One row per participant: the last known of each fact over all batches, and the side of the split';
COMMENT ON COLUMN participants.participant_id IS 'Pseudonym';
COMMENT ON COLUMN participants.sex IS 'Assigned at birth: female or male; null unknown';
COMMENT ON COLUMN participants.age_years IS 'Self-reported age; null unknown';
COMMENT ON COLUMN participants.height_m IS 'Height; null unknown';
COMMENT ON COLUMN participants.bmi_kg_m2 IS 'Body mass index; null unknown';
COMMENT ON COLUMN participants.split IS 'train or test; null without a segment';
COMMENT ON COLUMN participants.first_batch_id IS 'Batch that first described the participant';

-- The k segments whose embeddings are most like one segment's: FROM similar_segments('ppg_teacher', '0123456789abcdef', 10)
CREATE OR REPLACE MACRO similar_segments(encoder, segment, k) AS TABLE
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
CREATE OR REPLACE MACRO participant_embedding(encoder) AS TABLE
SELECT participant_id, segments, embedding
FROM query_table('embeddings.' || encoder || '__by_participant')
ORDER BY participant_id;
COMMENT ON MACRO TABLE participant_embedding IS '(encoder): mean embedding and number of segments of every participant';

-- Everything that an artifact was made from, down to the raw files: FROM lineage_of('report:report')
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
COMMENT ON MACRO TABLE lineage_of IS '(artifact): all that it was made from, with the versions then and now, code, configuration and run';

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
COMMENT ON VIEW model_cohort IS 'Whose segments went into each checkpoint: its own training participants and, for a student, its teacher''s';
COMMENT ON COLUMN model_cohort.encoder IS 'Encoder of the checkpoint';
COMMENT ON COLUMN model_cohort.model_id IS 'The checkpoint';
COMMENT ON COLUMN model_cohort.participant_id IS 'Pseudonym; null for somebody who has withdrawn since';
COMMENT ON COLUMN model_cohort.through_encoder IS 'Encoder that was trained on the segments: itself or its teacher';
COMMENT ON COLUMN model_cohort.through_model_id IS 'Its checkpoint';
COMMENT ON COLUMN model_cohort.batch_id IS 'Batch of the segments';
COMMENT ON COLUMN model_cohort.segments IS 'Number of the segments';

-- Who is inside a checkpoint: FROM participants_in('0123456789abcdef')
CREATE OR REPLACE MACRO participants_in(model) AS TABLE
SELECT participant_id, through_encoder, through_model_id, batch_id, segments
FROM model_cohort
WHERE model_id = model
ORDER BY ALL;
COMMENT ON MACRO TABLE participants_in IS '(model): whose segments went into the checkpoint, by itself or through its teacher';

CREATE OR REPLACE VIEW participant_targets AS
SELECT participant_id, target, arg_max(value, batch_id) AS value
FROM survey_targets
GROUP BY participant_id, target;
COMMENT ON VIEW participant_targets IS 'One row per participant who answered the survey and health target: the last known over all batches';
COMMENT ON COLUMN participant_targets.participant_id IS 'Pseudonym';
COMMENT ON COLUMN participant_targets.target IS 'Condition, medication or habit, such as diabetes (accelkd/cohort/survey.py defines all)';
COMMENT ON COLUMN participant_targets.value IS 'True or false; null where the answers say neither, which leaves the participant out';

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
COMMENT ON VIEW probe_leaderboard IS 'Probes of every model, best first; places compare the results on one version of the split';
COMMENT ON COLUMN probe_leaderboard.target IS 'hr_bpm, sdnn_ms or rmssd_ms';
COMMENT ON COLUMN probe_leaderboard.place IS '1 has the smallest mean absolute error among the same target and split version';
COMMENT ON COLUMN probe_leaderboard.encoder IS 'Encoder whose embeddings were probed';
COMMENT ON COLUMN probe_leaderboard.model_id IS 'Its checkpoint';
COMMENT ON COLUMN probe_leaderboard.mae IS 'Mean absolute error on the test participants';
COMMENT ON COLUMN probe_leaderboard.constant_mae IS 'Mean absolute error of the median of the training targets';
COMMENT ON COLUMN probe_leaderboard.unit IS 'Unit of the target and its errors';
COMMENT ON COLUMN probe_leaderboard.better_than_constant_percent IS 'How much smaller the error is than the constant''s; negative where it is larger';
COMMENT ON COLUMN probe_leaderboard.pearson_r IS 'Pearson correlation of prediction and target; null where one of them is constant';
COMMENT ON COLUMN probe_leaderboard.test_participants IS 'Participants that it was measured on';
COMMENT ON COLUMN probe_leaderboard.test_segments IS 'Segments that it was measured on';
COMMENT ON COLUMN probe_leaderboard.split_version IS 'Split that said who is in training and in test';
COMMENT ON COLUMN probe_leaderboard.artifact_id IS 'For lineage_of: where the numbers come from';

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
COMMENT ON VIEW cohort_summary IS 'Everybody with segments, by side of the split and device';
COMMENT ON COLUMN cohort_summary.split IS 'train or test; null where the split has not been extended yet';
COMMENT ON COLUMN cohort_summary.device_id IS 'Device (docs/devices.md); who wore two is counted at both';
COMMENT ON COLUMN cohort_summary.participants IS 'Participants with segments';
COMMENT ON COLUMN cohort_summary.female IS 'Of these, assigned female at birth';
COMMENT ON COLUMN cohort_summary.age_median_years IS 'Median age of these';
COMMENT ON COLUMN cohort_summary.segments IS 'Segments';
COMMENT ON COLUMN cohort_summary.labelled_segments IS 'Segments whose labels pass the quality gate';
COMMENT ON COLUMN cohort_summary.hr_bpm_mean IS 'Mean heart rate of these';

CREATE TABLE schema_version (sha256 VARCHAR NOT NULL);
COMMENT ON TABLE schema_version IS 'Which version of the schema made this file';
COMMENT ON COLUMN schema_version.sha256 IS 'SHA-256 of accelkd/warehouse/schema.sql';
