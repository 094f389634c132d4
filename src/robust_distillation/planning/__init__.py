"""Plans of an experiment: its jobs, their cost and time, and a profile for a cluster."""
