"""Computes accuracies over seeds, confidence intervals of their differences, and verdicts on claims."""
