"""The bench behind Module 3.3: starts inference engines, measures them, plots and grades.

Importing this package costs nothing; every module imports what is heavy when it is used.
"""

__version__ = "0.1.0"
