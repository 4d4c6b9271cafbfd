"""Fast twins of the objectives."""
