"""Faults on a whole console of its own, and whether what must always hold still holds. `make chaos`."""
