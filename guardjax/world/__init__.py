"""The policy world: real pictures composed into scenes with exactly known attributes."""
