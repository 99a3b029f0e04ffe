"""Every setting of every command: its name, default, meaning and limits; no torch."""
