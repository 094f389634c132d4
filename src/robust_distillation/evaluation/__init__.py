"""Attacks trained models, in blocks of test images, and stores the per-image outcomes."""
