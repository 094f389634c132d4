"""Attacks on finished models, in blocks of test images, and their outcomes."""
