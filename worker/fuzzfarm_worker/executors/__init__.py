"""Executors: batches with collected errors and futures, over one concurrency kernel."""
