"""Reports: figures, Markdown, the written report."""
