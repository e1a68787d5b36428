"""The tables of a report: Markdown, CSV and terminal."""
