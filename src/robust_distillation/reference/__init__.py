"""What others published: numbers to compare with, and checkpoints to import."""
