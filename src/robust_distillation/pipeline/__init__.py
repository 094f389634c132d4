"""Steps of an experiment: their declarations, code fingerprints and records, the data and teachers they read."""
