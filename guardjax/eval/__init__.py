"""Evaluation: predictions, metrics with intervals, tables, pictures, the report and the judge."""
