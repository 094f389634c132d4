"""Imports the results of an experiment into MLflow, from the files that its jobs wrote."""
