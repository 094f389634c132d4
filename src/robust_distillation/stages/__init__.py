"""Runs the steps that compute: a module each, which `pipeline.steps` names."""
