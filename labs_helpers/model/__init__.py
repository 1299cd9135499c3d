"""The course model: what it is, what it was taught, how it is trained, and the forms engines load it in."""
