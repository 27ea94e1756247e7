"""Raw recordings: an arrival batch is checked against every rule before anything reads it."""

import dagster as dg

from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.operations.share import landing_unit, shared_step, verdict_unit
from accelkd.recordings.batches import MANIFEST, read_manifest
from accelkd.recordings.schema import RECORDING
from accelkd.recordings.validate import validate_arrival
from assets.failures import Failed, explained
from assets.metadata import counts_table, file_table, presented, tags
from assets.partitions import arrival_batches

MAX_VIOLATIONS = 20  # of a refused batch that are shown


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
    with shared_step(home, verdict_unit(folder.name), reads=[landing_unit(folder.name)]):
        violations = validate_arrival(home, folder.name)
    rules_broken = counts_table(violations.counts, "rule")
    fatal = [violation.redacted for violation in violations if violation.fatal]
    if fatal:
        raise Failed(
            f"batch {folder.name} cannot be used: {fatal[0]}",
            {"violations": fatal[:MAX_VIOLATIONS], "rules_broken": rules_broken},
        )
    manifest = read_manifest(folder)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(folder / MANIFEST)),
        metadata=presented(
            {
                "recordings": manifest.rows("recordings"),
                "participants": manifest.rows("participants"),
                "recordings_breaking_a_rule": violations.recordings,
                "files_rejected_at_ingest": manifest.rows("rejected"),
                "rules_broken": rules_broken,
                "devices": ", ".join(manifest.devices),
                "source": manifest.source,
                "dagster/row_count": manifest.rows("recordings"),
                "dagster/uri": str(folder),
            }
        ),
    )
