"""Compiled arithmetic of the models: arrays in, arrays out."""
