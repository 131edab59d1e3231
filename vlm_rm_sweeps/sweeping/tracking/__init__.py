"""What is written down: folder, journal, MLflow, progress, tables, report."""
