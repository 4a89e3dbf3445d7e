"""The application: visitors are counted."""
