-- Views of the warehouse; its tables are declared in schema.py, its macros in macros.sql.
-- schema.py replaces {age_band} by the bands of the split.

CREATE OR REPLACE VIEW participants AS
SELECT
    participant_id,
    arg_max(sex, batch_id) AS sex,
    arg_max(age_years, batch_id) AS age_years,
    {age_band} AS age_band,
    arg_max(height_m, batch_id) AS height_m,
    arg_max(bmi_kg_m2, batch_id) AS bmi_kg_m2,
    arg_max(skin_tone, batch_id) AS skin_tone,
    any_value(side) AS split,
    min(batch_id) AS first_batch_id
FROM demographics LEFT JOIN (SELECT participant_id, split AS side FROM split) USING (participant_id)
GROUP BY participant_id;
COMMENT ON VIEW participants IS 'One row per participant: the last known of each fact over all batches, and the side of the split';
COMMENT ON COLUMN participants.participant_id IS 'Pseudonym';
COMMENT ON COLUMN participants.sex IS 'Assigned at birth: female or male; null unknown';
COMMENT ON COLUMN participants.age_years IS 'Self-reported age; null unknown';
COMMENT ON COLUMN participants.age_band IS 'Ten-year band of the age: under 30, 30 to 39, ..., 70 and over; unknown without an age';
COMMENT ON COLUMN participants.height_m IS 'Height; null unknown';
COMMENT ON COLUMN participants.bmi_kg_m2 IS 'Body mass index; null unknown';
COMMENT ON COLUMN participants.skin_tone IS 'Monk skin tone, 1 (lightest) to 10 (darkest); null unknown';
COMMENT ON COLUMN participants.split IS 'train or test; null without a segment';
COMMENT ON COLUMN participants.first_batch_id IS 'Batch that first described the participant';

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

CREATE OR REPLACE VIEW participant_targets AS
SELECT participant_id, target, arg_max(value, batch_id) AS value
FROM survey_targets
GROUP BY participant_id, target;
COMMENT ON VIEW participant_targets IS 'One row per participant who answered the survey and health target: the last known over all batches';
COMMENT ON COLUMN participant_targets.participant_id IS 'Pseudonym';
COMMENT ON COLUMN participant_targets.target IS 'Condition, medication or habit, such as diabetes (accelkd/recordings/survey.py defines all)';
COMMENT ON COLUMN participant_targets.value IS 'True or false; null where the answers say neither, which leaves the participant out';

CREATE OR REPLACE VIEW probe_leaderboard AS
SELECT
    target,
    rank() OVER (PARTITION BY target, split_version ORDER BY mae) AS place,
    encoder,
    model_id,
    mae,
    constant_mae,
    classical_mae,
    unit,
    100 * (1 - mae / nullif(constant_mae, 0)) AS better_than_constant_percent,
    pearson_r,
    test_participants,
    test_segments,
    split_version,
    'probe:' || encoder || '/' || model_id AS artifact_id,
    status,
    not_decidable
FROM probe_results
ORDER BY target, split_version, place, encoder, model_id;
COMMENT ON VIEW probe_leaderboard IS 'Probes of every model, best first; places compare the results on one version of the split';
COMMENT ON COLUMN probe_leaderboard.target IS 'hr_bpm, sdnn_ms or rmssd_ms';
COMMENT ON COLUMN probe_leaderboard.place IS '1 has the smallest mean absolute error among the same target and split version';
COMMENT ON COLUMN probe_leaderboard.encoder IS 'Encoder whose embeddings were probed';
COMMENT ON COLUMN probe_leaderboard.model_id IS 'Its checkpoint';
COMMENT ON COLUMN probe_leaderboard.mae IS 'Mean absolute error on the test participants';
COMMENT ON COLUMN probe_leaderboard.constant_mae IS 'Mean absolute error of the median of the training targets';
COMMENT ON COLUMN probe_leaderboard.classical_mae IS 'Mean absolute error of accel_hr_bpm on the same segments, without a model; null of other targets';
COMMENT ON COLUMN probe_leaderboard.unit IS 'Unit of the target and its errors';
COMMENT ON COLUMN probe_leaderboard.better_than_constant_percent IS 'How much smaller the error is than the constant''s; negative where it is larger';
COMMENT ON COLUMN probe_leaderboard.pearson_r IS 'Pearson correlation of prediction and target; null where one of them is constant';
COMMENT ON COLUMN probe_leaderboard.test_participants IS 'Participants that it was measured on';
COMMENT ON COLUMN probe_leaderboard.test_segments IS 'Segments that it was measured on';
COMMENT ON COLUMN probe_leaderboard.split_version IS 'Split that said who is in training and in test';
COMMENT ON COLUMN probe_leaderboard.artifact_id IS 'For lineage_of: where the numbers come from';
COMMENT ON COLUMN probe_leaderboard.status IS 'decidable or not_decidable (docs/evaluation.md)';
COMMENT ON COLUMN probe_leaderboard.not_decidable IS 'Why nothing is decided by so few people; null where it is';

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
