"""The content of a report as data, which every table, chart and sentence is made from."""
