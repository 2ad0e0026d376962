"""Worked examples, run as modules: python -m examples.demo."""
