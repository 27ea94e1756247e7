"""DuckDB: schema, loading, provenance and publishing."""
