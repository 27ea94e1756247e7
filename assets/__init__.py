"""Software-defined assets, one module per stage; each calls accelkd and reports metadata."""
