"""Runs and reports in the tracking service that a group uses: Weights & Biases, MLflow."""
