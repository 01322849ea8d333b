"""What is said of a run while it goes on; listens to its events."""
