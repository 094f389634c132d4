"""Runs the steps that make tables and figures: a module each, which `pipeline.steps` names."""
