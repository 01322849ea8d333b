"""The estimators: each is tables, a step, and what users ask of the result."""
