"""The teacher that a student learns from while it trains."""
