-- Macros of the warehouse: those with AS TABLE are called like tables, the others like functions.
--
-- DuckDB looks the tables in a macro up where the caller is, not in the file that the macro is in. So each table is
-- named through query_table with {catalog}, which schema.py replaces: nothing where the warehouse is the caller's
-- database, else the name that the caller gives in `catalog`. DuckDB 1.4 knows all that is written here.
--
-- An identifier that is not there raises an error: an empty answer would look like a result. IS (NOT) DISTINCT FROM, so
-- that DuckDB does not answer null with nothing before it looks.

-- Cosine similarity of two embeddings: SELECT cosine_similarity(a.embedding, b.embedding)
CREATE OR REPLACE MACRO cosine_similarity(a, b) AS
list_cosine_similarity(a::FLOAT[], b::FLOAT[]);
COMMENT ON MACRO cosine_similarity IS '(a, b): cosine similarity of two embeddings of one length; null where one is null';

-- Mean embedding of any group: SELECT device_id, mean_embedding(embedding) ... GROUP BY device_id
CREATE OR REPLACE MACRO mean_embedding(embedding) AS
list_reduce(
    list(embedding::DOUBLE[]) FILTER (embedding IS NOT NULL),
    -- The mean of the first n, from that of the first n - 1
    lambda mean, next, n: list_transform(list_zip(mean, next), lambda pair: pair[1] + (pair[2] - pair[1]) / n)
)::FLOAT[];
COMMENT ON MACRO mean_embedding IS '(embedding): mean of the embeddings of a group, not normalised; an aggregate';

-- The k segments whose embeddings are most like one segment's: FROM similar_segments('ppg_teacher', '0123456789abcdef', 10)
CREATE OR REPLACE MACRO similar_segments(encoder, segment, k, catalog := NULL) AS TABLE
SELECT
    other.segment_id,
    other.participant_id,
    array_cosine_similarity(this.embedding, other.embedding) AS similarity
FROM (
    SELECT
        any_value(embedding) AS embedding,
        CASE WHEN count(*) = 0 THEN error(concat('embeddings.', encoder, ' has no segment ', segment)) ELSE true END AS known
    FROM query_table({catalog} || 'embeddings.' || encoder) WHERE segment_id = segment
) AS this, query_table({catalog} || 'embeddings.' || encoder) AS other
WHERE this.known AND other.segment_id IS DISTINCT FROM segment
ORDER BY similarity DESC, other.segment_id
LIMIT k;
COMMENT ON MACRO TABLE similar_segments IS '(encoder, segment, k, catalog): the k most similar segments by cosine similarity';

-- The k segments of another encoder most like one segment, in the space of the projection heads:
-- FROM matching_segments('accel_student', '0123456789abcdef', 'ppg_teacher', 10)
CREATE OR REPLACE MACRO matching_segments(encoder, segment, other_encoder, k, catalog := NULL) AS TABLE
SELECT
    other.segment_id,
    other.participant_id,
    array_cosine_similarity(this.projected, other.projected) AS similarity,
    other.segment_id = segment AS own_pair
FROM (
    SELECT
        any_value(projected) AS projected,
        any_value(projected_by) AS projected_by,
        CASE
            WHEN count(*) = 0 THEN error(concat('embeddings.', encoder, ' has no segment ', segment))
            WHEN count(projected) = 0 THEN error(concat('embeddings.', encoder, ' has no projection of segment ', segment))
            WHEN count(space) = 0
            THEN error(concat('embeddings.', other_encoder, ' has no projection in the space of embeddings.', encoder))
            ELSE true
        END AS known
    FROM query_table({catalog} || 'embeddings.' || encoder)
    LEFT JOIN (SELECT DISTINCT projected_by AS space FROM query_table({catalog} || 'embeddings.' || other_encoder))
        ON space = projected_by
    WHERE segment_id = segment
) AS this, query_table({catalog} || 'embeddings.' || other_encoder) AS other
WHERE this.known AND this.projected_by IS NOT DISTINCT FROM other.projected_by
ORDER BY similarity DESC, other.segment_id
LIMIT k;
COMMENT ON MACRO TABLE matching_segments IS '(encoder, segment, other_encoder, k, catalog): the k segments of another encoder, such as of the other modality, most similar by cosine similarity of the projected embeddings';

-- Mean embedding of every participant: FROM participant_embedding('ppg_teacher')
CREATE OR REPLACE MACRO participant_embedding(encoder, catalog := NULL) AS TABLE
SELECT participant_id, segments, embedding
FROM query_table({catalog} || 'embeddings.' || encoder || '__by_participant')
ORDER BY participant_id;
COMMENT ON MACRO TABLE participant_embedding IS '(encoder, catalog): mean embedding and number of segments of every participant';

-- The k participants whose mean embeddings are most like one participant's: FROM similar_participants('ppg_teacher', 'p1', 10)
CREATE OR REPLACE MACRO similar_participants(encoder, participant, k, catalog := NULL) AS TABLE
SELECT
    other.participant_id,
    array_cosine_similarity(this.embedding, other.embedding) AS similarity,
    other.segments
FROM (
    SELECT
        any_value(embedding) AS embedding,
        CASE WHEN count(*) = 0 THEN error(concat('embeddings.', encoder, ' has no participant ', participant)) ELSE true END AS known
    FROM query_table({catalog} || 'embeddings.' || encoder || '__by_participant') WHERE participant_id = participant
) AS this, query_table({catalog} || 'embeddings.' || encoder || '__by_participant') AS other
WHERE this.known AND other.participant_id IS DISTINCT FROM participant
ORDER BY similarity DESC, other.participant_id
LIMIT k;
COMMENT ON MACRO TABLE similar_participants IS '(encoder, participant, k, catalog): the k participants of the most similar mean embeddings';

-- Everything that an artifact was made from, down to the raw files: FROM lineage_of('report:report')
CREATE OR REPLACE MACRO lineage_of(artifact, catalog := NULL) AS TABLE
WITH RECURSIVE line AS (
    SELECT 0 AS depth, artifact_id, version
    FROM query_table({catalog} || 'provenance.artifacts')
    WHERE artifact_id IS NOT DISTINCT FROM artifact
    UNION
    SELECT depth + 1, input_id, input_version
    FROM line JOIN query_table({catalog} || 'provenance.edges') AS edges USING (artifact_id)
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
FROM line JOIN query_table({catalog} || 'provenance.artifacts') AS artifacts USING (artifact_id)
LEFT JOIN query_table({catalog} || 'provenance.runs') AS runs
    ON runs.artifact_id = line.artifact_id AND runs.version = line.version
WHERE (
    SELECT CASE WHEN count(*) = 0 THEN error(concat('there is no artifact ', artifact)) ELSE true END
    FROM query_table({catalog} || 'provenance.artifacts') WHERE artifact_id = artifact
)
GROUP BY artifact_id, kind, path, version_used, version_now
ORDER BY depth, artifact_id;
COMMENT ON MACRO TABLE lineage_of IS '(artifact, catalog): all that it was made from, with the versions then and now, code, configuration and run';

-- Who is inside a checkpoint: FROM participants_in('0123456789abcdef')
CREATE OR REPLACE MACRO participants_in(model, catalog := NULL) AS TABLE
SELECT participant_id, through_encoder, through_model_id, batch_id, segments
FROM query_table({catalog} || 'model_cohort')
WHERE model_id IS NOT DISTINCT FROM model
  AND (
    SELECT CASE WHEN count(*) = 0 THEN error(concat('there is no model ', model)) ELSE true END
    FROM query_table({catalog} || 'models') WHERE model_id = model
  )
ORDER BY ALL;
COMMENT ON MACRO TABLE participants_in IS '(model, catalog): whose segments went into the checkpoint, by itself or through its teacher';

-- Which checkpoints hold a participant: FROM checkpoints_with('p1')
CREATE OR REPLACE MACRO checkpoints_with(participant, catalog := NULL) AS TABLE
SELECT
    encoder,
    model_id,
    list(DISTINCT through_encoder ORDER BY through_encoder) AS through,
    sum(segments)::BIGINT AS segments
FROM query_table({catalog} || 'model_cohort')
WHERE participant_id IS NOT DISTINCT FROM participant
  AND (
    SELECT CASE WHEN count(*) = 0 THEN error(concat('there is no participant ', participant)) ELSE true END
    FROM query_table({catalog} || 'participants') WHERE participant_id = participant
  )
GROUP BY ALL
ORDER BY ALL;
COMMENT ON MACRO TABLE checkpoints_with IS '(participant, catalog): the checkpoints that were trained on the participant''s segments, by themselves or through their teacher';
