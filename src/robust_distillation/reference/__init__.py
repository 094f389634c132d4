"""Published numbers to compare with, and published checkpoints to import."""
