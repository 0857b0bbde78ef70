"""What the readers of all formats share: text, json, strict values, records, units of boxes."""
