"""Runs in the client's words (mapi §2): types, inputs, and the fields that the root schema takes in."""
