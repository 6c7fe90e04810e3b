"""Benchmarks: ours and a peer or floor, interleaved in one run; what counts is the ratio, never the seconds."""
