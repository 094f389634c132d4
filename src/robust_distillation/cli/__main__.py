"""Runs the command line: `python -m robust_distillation.cli`."""

from robust_distillation.cli import main

main()
