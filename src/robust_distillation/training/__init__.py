"""Training of teachers and students: one loop for every method."""
