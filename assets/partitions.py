"""The partitions: one per arrival batch, registered as batches arrive."""

import dagster as dg

# Not the participant: a batch holds up to some hundred of them, and the UI stays quick up to 10,000 batches.
arrival_batches = dg.DynamicPartitionsDefinition(name="arrival_batch")
