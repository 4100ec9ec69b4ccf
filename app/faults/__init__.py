"""What goes wrong between a client and a broker, made to happen: for tests and benchmarks, never in production."""
