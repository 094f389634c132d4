"""Attacking finished models: blocks, outcomes, statistics."""
