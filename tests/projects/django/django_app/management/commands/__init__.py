"""Part of the application."""
