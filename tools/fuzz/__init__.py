"""Damaged and hostile inputs by the thousand, made from their structure: see `python -m tools.fuzz --help`."""
