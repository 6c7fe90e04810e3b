"""Logs are bytes at offsets. `collect` brings them in, `store` keeps them, `stream` hands them on."""
