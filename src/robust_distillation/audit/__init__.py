"""Verifies results against their records, the code and git."""
