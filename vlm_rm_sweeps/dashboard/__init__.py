"""Prometheus and Grafana beside a running sweep."""
