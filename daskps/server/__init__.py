"""The parameter server: tables, slots, shards, updaters and the client that reaches them.

Plain objects and arrays; knows neither Dask nor the models.
"""
