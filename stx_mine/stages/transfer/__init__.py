"""`publish` and `fetch`: finished artifacts at a URL, and back."""
