"""Pure kernels: columns and the time in, columns out. No I/O, no clock, no engine."""
