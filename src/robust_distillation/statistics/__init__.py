"""Accuracies over seeds, intervals of their differences, and verdicts on claims."""
