"""Policy YAML: schema, loading with line numbers, compilation to core parameters."""
