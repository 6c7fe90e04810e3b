"""What `make demo` shows: on real processes (`scenes`), and at size on a simulated cluster (`simulated`)."""
