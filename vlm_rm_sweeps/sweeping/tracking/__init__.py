"""Records of a sweep: folder, journal, MLflow runs, progress, tables and report."""
