"""``surogate-bench init``: converts a few answers to a commented sweep file. Answers, document and text are pure."""
