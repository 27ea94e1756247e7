"""Raw recordings: an arrival batch is checked against every rule before anything reads it."""

from collections import Counter

import dagster as dg

from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import accept, refuse
from accelkd.recordings.batches import MANIFEST, read_manifest
from accelkd.recordings.schema import RECORDING
from accelkd.recordings.validate import validate_batch
from assets.failures import Failed, explained
from assets.metadata import counts_table, file_table, presented, tags
from assets.partitions import arrival_batches

MAX_REASONS = 20  # that are kept of a refused batch


@dg.asset(
    partitions_def=arrival_batches,
    group_name="recordings",
    kinds={"parquet"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-batch"),
    code_version="1",
    metadata=file_table(RECORDING),
)
@explained
def raw_recordings(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Raw recordings of one arrival batch, as they landed.

    Nothing is copied: the batch in the landing zone is validated (manifest, hashes, schema, every recording). A batch
    that breaks a rule as a whole fails here with the file, row and rule; a bad recording does not: it goes to
    quarantine with its reason when segments are cut.
    """
    folder = home.batch(context.partition_key)
    violations = validate_batch(folder)
    fatal = [violation.redacted for violation in violations if violation.fatal]
    if fatal:
        refuse(home, folder.name, fatal[:MAX_REASONS])
        raise Failed(f"batch {folder.name} cannot be used: {fatal[0]}", {"violations": fatal[:MAX_REASONS]})
    accept(home, folder.name)
    manifest = read_manifest(folder)
    bad = {(violation.file, violation.row) for violation in violations}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(folder / MANIFEST)),
        metadata=presented(
            {
                "recordings": manifest.rows("recordings"),
                "participants": manifest.rows("participants"),
                "recordings_breaking_a_rule": len(bad),
                "files_rejected_at_ingest": manifest.rows("rejected"),
                "rules_broken": counts_table(Counter(violation.rule for violation in violations), "rule"),
                "devices": ", ".join(manifest.devices),
                "source": manifest.source,
                "dagster/row_count": manifest.rows("recordings"),
                "dagster/uri": str(folder),
            }
        ),
    )
