"""Cases that students do not see. Never shown inside the sandbox, never printed on a feedback page."""
