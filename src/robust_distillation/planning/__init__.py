"""What an experiment will cost: its jobs, their time, and a profile for a cluster."""
