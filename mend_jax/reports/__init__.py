"""What a run leaves to read: results.json, tables, figures, progress, texts."""
