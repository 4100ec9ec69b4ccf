"""Files that people give: read by explicit rules, nothing guessed, every refusal with file, line, field and value."""
