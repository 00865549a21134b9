"""Whether a job fits a TPU slice and how long a step must take, asked before the slice is paid for."""
