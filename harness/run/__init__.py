"""A run: a dataset through decoders into a record. `runner` tells it from top to bottom."""
