"""Whether a job fits a TPU slice, and the least time of a step, before the slice is paid for."""
