"""Declares the steps of an experiment, runs them, writes their records, and opens the data and teachers they read."""
