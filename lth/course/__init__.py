"""The course: checks that a learner runs alone, and what makes a session's notebooks from their source."""
