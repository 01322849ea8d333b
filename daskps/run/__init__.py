"""A run: the coordinator, what it decides, and the engines that carry it out."""
