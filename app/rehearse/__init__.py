"""`deskrisk rehearse`: scenarios in files, run against a whole installation as its users see it."""
