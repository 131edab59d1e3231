"""What is written down: folder, journal, MLflow, tables, report."""
