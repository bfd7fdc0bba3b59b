"""`shoal doctor`: tries every dependency that the settings name, and says what is wrong."""
