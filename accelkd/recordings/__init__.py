"""Raw recordings: schema and validation, device readers, the cohort simulator, arrival batches."""
